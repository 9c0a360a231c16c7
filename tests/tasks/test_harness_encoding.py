"""The harness's rules for tokens, against the harness itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors

from tests.tiny import tiny_model, tiny_tokenizer
from workbench.models.load import load_model
from workbench.tasks.harness.encoding import Encoder

pytest.importorskip("lm_eval")

TEXTS = st.text(alphabet="ab c.\n", max_size=40)


@pytest.fixture(scope="module", params=["plain", "begins with BOS"])
def both(request):
    """The harness's model and our encoder, with and without a token that begins every text."""
    from lm_eval.models.huggingface import HFLM

    tokenizer = tiny_tokenizer()
    if request.param != "plain":
        tokenizer.add_special_tokens({"bos_token": "<begin>"})
        begin = ("<begin>", tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<begin> $A", special_tokens=[begin]
        )
    hf_model = tiny_model("LlamaForCausalLM")
    hf_model.config.max_position_embeddings = 16
    return HFLM(pretrained=hf_model, tokenizer=tokenizer), Encoder(load_model(hf_model, tokenizer))


@settings(max_examples=150, deadline=None)
@given(context=TEXTS.filter(str.strip), continuation=TEXTS.filter(str.strip))
def test_a_pair_is_cut_as_there(both, context, continuation):
    theirs, ours = both
    given_tokens, answer = theirs._encode_pair(context, continuation)
    if not answer or len(answer) > 16:  # which the harness refuses
        return
    tokens, n_given = ours.pair(context, continuation)
    assert tokens == (given_tokens + answer)[-17:]
    assert tokens[n_given:] == answer


@settings(max_examples=100, deadline=None)
@given(text=TEXTS.filter(bool))
def test_an_empty_context_is_the_token_that_begins_a_text(both, text):
    theirs, ours = both
    asked = []
    theirs._loglikelihood_tokens = lambda requests, **_: asked.extend(requests)
    theirs.loglikelihood([type("Request", (), {"args": ("", text)})], disable_tqdm=True)
    ((_, given_tokens, answer),) = asked
    if len(given_tokens) + len(answer) > 17:
        return
    assert ours.pair("", text) == (given_tokens + answer, len(given_tokens))


@settings(max_examples=100, deadline=None)
@given(text=TEXTS.filter(bool))
def test_windows_are_disjoint_as_there(both, text):
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    theirs, ours = both
    windows = get_rolling_token_windows(
        token_list=theirs.tok_encode(text),
        prefix_token=theirs.prefix_token_id,
        max_seq_len=16,
        context_len=1,
    )
    expected = [(a + b, len(a)) for a, b in map(make_disjoint_window, windows)]
    assert ours.windows(text) == expected
