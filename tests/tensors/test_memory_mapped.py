import pytest

from workbench.tensors.memory_mapped import build_folder, mapped_floats, read_meta


def test_what_is_written_through_one_mapping_is_read_by_the_next(tmp_path):
    mapped_floats(tmp_path / "x.f32", (2, 3), shared=True)[1, 2] = 5.0
    found = mapped_floats(tmp_path / "x.f32", (2, 3), shared=False)
    assert found.tolist() == [[0, 0, 0], [0, 0, 5]]
    found[0, 0] = 7.0
    assert mapped_floats(tmp_path / "x.f32", (6,), shared=False)[0] == 0


def test_a_folder_is_built_once_and_appears_complete(tmp_path):
    calls = []

    def build(folder):
        calls.append(folder)
        assert not (tmp_path / "done").exists()
        return {"answer": 42}

    for _ in range(2):
        build_folder(tmp_path / "done", build)
    assert len(calls) == 1
    assert read_meta(tmp_path / "done") == {"answer": 42}
    assert [path.name for path in tmp_path.iterdir()] == ["done"]


def test_a_failure_leaves_nothing(tmp_path):
    def build(folder):
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_folder(tmp_path / "done", build)
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_builders_stays(tmp_path):
    def slower(_folder):
        build_folder(tmp_path / "done", lambda _: {"who": "first"})
        return {"who": "second"}

    build_folder(tmp_path / "done", slower)
    assert read_meta(tmp_path / "done") == {"who": "first"}
    assert [path.name for path in tmp_path.iterdir()] == ["done"]
