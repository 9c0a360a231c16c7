"""Tiny random models of architectures that users bring, beside those of :mod:`tests.tiny`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from tests.tiny import ARCHITECTURES, tiny_tokenizer

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_GROUPED: dict[str, Any] = {**_SIZES, "num_key_value_heads": 2}
_HEADS: dict[str, Any] = {**_GROUPED, "head_dim": 8}
_LATENT: dict[str, Any] = {
    **_SIZES,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "moe_intermediate_size": 24,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
}
_GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
_STATE: dict[str, Any] = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}
_LINEAR: dict[str, Any] = {
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
}

FAMILIES: dict[str, dict[str, Any]] = {
    "GptOss": {
        "config": "GptOssConfig",
        **_HEADS,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "DeepseekV2": {"config": "DeepseekV2Config", **_LATENT, "topk_method": "greedy"},
    "DeepseekV3": {"config": "DeepseekV3Config", **_LATENT},
    "Granite": {"config": "GraniteConfig", **_GROUPED},
    "GraniteMoe": {
        "config": "GraniteMoeConfig",
        **_GROUPED,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "GraniteMoeHybrid": {
        "config": "GraniteMoeHybridConfig",
        **_GROUPED,
        **_STATE,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 24,
        "layer_types": ["mamba", "attention"],
        "mamba_expand": 2,
    },
    "Lfm2": {
        "config": "Lfm2Config",
        **_GROUPED,
        "layer_types": ["conv", "full_attention"],
        "block_auto_adjust_ff_dim": False,
    },
    "Lfm2Moe": {
        "config": "Lfm2MoeConfig",
        **_GROUPED,
        "moe_intermediate_size": 24,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "num_dense_layers": 1,
        "layer_types": ["conv", "full_attention"],
    },
    "Qwen3Next": {
        "config": "Qwen3NextConfig",
        **_HEADS,
        **_LINEAR,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 24,
    },
    "Qwen3_5": {"config": "Qwen3_5TextConfig", **_HEADS, **_LINEAR},
    "Qwen3_5Moe": {
        "config": "Qwen3_5MoeTextConfig",
        **_HEADS,
        **_LINEAR,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 24,
    },
    "Bamba": {"config": "BambaConfig", **_GROUPED, **_STATE, "attn_layer_indices": [1]},
    "FalconH1": {
        "config": "FalconH1Config",
        **_HEADS,
        **_STATE,
        "mamba_d_ssm": 64,
    },
    "NemotronH": {
        "config": "NemotronHConfig",
        **_HEADS,
        "layers_block_type": ["mamba", "attention", "moe"],
        "num_hidden_layers": 3,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
        "n_groups": 2,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "moe_shared_expert_intermediate_size": 24,
        "n_group": 1,
        "topk_group": 1,
    },
    "Phi": {"config": "PhiConfig", **_GROUPED},
    "Phimoe": {
        "config": "PhimoeConfig",
        **_GROUPED,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "Cohere": {"config": "CohereConfig", **_GROUPED, "use_qk_norm": True},
    "Cohere2": {
        "config": "Cohere2Config",
        **_GROUPED,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "StableLm": {"config": "StableLmConfig", **_GROUPED},
    "Olmo2": {"config": "Olmo2Config", **_GROUPED},
    "Olmo3": {
        "config": "Olmo3Config",
        **_GROUPED,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "Olmoe": {
        "config": "OlmoeConfig",
        **_GROUPED,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    },
    "GPTJ": {"config": "GPTJConfig", **_GPT, "rotary_dim": 4},
    "GPTNeo": {
        "config": "GPTNeoConfig",
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "max_position_embeddings": 64,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
    },
    "GPTBigCode": {"config": "GPTBigCodeConfig", **_GPT},
    "Bloom": {"config": "BloomConfig", "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "Mpt": {
        "config": "MptConfig",
        "d_model": 32,
        "n_heads": 4,
        "n_layers": 2,
        "max_seq_len": 64,
        "expansion_ratio": 2,
    },
    "CodeGen": {"config": "CodeGenConfig", **_GPT, "rotary_dim": 4, "n_ctx": 64},
    "Glm": {"config": "GlmConfig", **_HEADS},
    "Glm4": {"config": "Glm4Config", **_HEADS},
    "Glm4Moe": {
        "config": "Glm4MoeConfig",
        **_HEADS,
        "moe_intermediate_size": 24,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
    },
    "Ernie4_5": {"config": "Ernie4_5Config", **_HEADS},
    "Ernie4_5_Moe": {
        "config": "Ernie4_5_MoeConfig",
        **_GROUPED,
        "moe_intermediate_size": 24,
        "moe_num_experts": 4,
        "moe_k": 2,
        "moe_num_shared_experts": 1,
        "moe_layer_start_index": 1,
    },
    "Gemma3n": {
        "config": "Gemma3nTextConfig",
        **_HEADS,
        "intermediate_size": [48, 48, 48],
        "num_hidden_layers": 3,
        "vocab_size_per_layer_input": 260,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 8,
        "num_kv_shared_layers": 1,
        "sliding_window": 8,
        "activation_sparsity_pattern": [0.5, 0.0, 0.0],
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    },
    "Gemma4": {
        "config": "Gemma4TextConfig",
        **_HEADS,
        "vocab_size_per_layer_input": 260,
        "hidden_size_per_layer_input": 8,
        "global_head_dim": 8,
        "sliding_window": 8,
        "num_kv_shared_layers": 0,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "SmolLM3": {"config": "SmolLM3Config", **_GROUPED},
    "Exaone4": {"config": "Exaone4Config", **_GROUPED},
    "HunYuanDenseV1": {"config": "HunYuanDenseV1Config", **_HEADS},
    "HunYuanMoEV1": {
        "config": "HunYuanMoEV1Config",
        **_HEADS,
        "num_experts": 4,
        "moe_topk": [2, 2],
    },
    "MiniMax": {
        "config": "MiniMaxConfig",
        **_HEADS,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "layer_types": ["linear_attention", "full_attention"],
        "block_size": 8,
    },
    "Rwkv": {
        "config": "RwkvConfig",
        "hidden_size": 32,
        "attention_hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "context_length": 64,
    },
    "SeedOss": {"config": "SeedOssConfig", **_HEADS},
    "Apertus": {"config": "ApertusConfig", **_GROUPED},
    "Nemotron": {"config": "NemotronConfig", **_GROUPED},
    "Starcoder2": {"config": "Starcoder2Config", **_GROUPED},
    "Persimmon": {"config": "PersimmonConfig", **_SIZES},
    "Helium": {"config": "HeliumConfig", **_HEADS},
    "Arcee": {"config": "ArceeConfig", **_HEADS},
    "XGLM": {
        "config": "XGLMConfig",
        "d_model": 32,
        "ffn_dim": 48,
        "num_layers": 2,
        "attention_heads": 4,
        "max_position_embeddings": 64,
    },
    "BioGpt": {"config": "BioGptConfig", **_SIZES},
}
"""Text decoders that work, by default as ``<key>ForCausalLM``: blocks of two layers, 32 wide.

Beside attention and gated networks they have latent attention, experts beside dense layers,
convolutions, linear attention, state spaces, routers and biases kept in float32, and inputs of
their own for every layer.
"""

PARTLY: dict[str, dict[str, Any]] = {
    "Mamba": {
        "config": "MambaConfig",
        "hidden_size": 32,
        "state_size": 8,
        "num_hidden_layers": 2,
        "time_step_rank": 4,
    },
    "Mamba2": {
        "config": "Mamba2Config",
        "hidden_size": 32,
        "state_size": 8,
        "num_hidden_layers": 2,
        "num_heads": 4,
        "head_dim": 16,
        "n_groups": 2,
    },
    "Jamba": {
        "config": "JambaConfig",
        **_GROUPED,
        "num_hidden_layers": 4,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "Zamba2": {
        "config": "Zamba2Config",
        **_GROUPED,
        "num_hidden_layers": 3,
        "num_key_value_heads": 4,
        "mamba_d_state": 8,
        "mamba_ngroups": 2,
        "n_mamba_heads": 4,
        "mamba_headdim": 16,
        "num_mem_blocks": 1,
        "layers_block_type": ["mamba", "hybrid", "mamba"],
        "use_mamba_kernels": False,
    },
    "RecurrentGemma": {
        "config": "RecurrentGemmaConfig",
        **_GROUPED,
        "num_hidden_layers": 3,
        "lru_width": 32,
        "head_dim": 8,
        "attention_window_size": 16,
    },
    "Llama4": {
        "config": "Llama4TextConfig",
        **_HEADS,
        "intermediate_size_mlp": 48,
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "attention_chunk_size": 16,
    },
    "Dbrx": {
        "config": "DbrxConfig",
        "d_model": 32,
        "n_heads": 4,
        "n_layers": 2,
        "max_seq_len": 64,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
        "ffn_config": {
            "hidden_size": 32,
            "ffn_hidden_size": 48,
            "moe_num_experts": 4,
            "moe_top_k": 2,
        },
    },
    "JetMoe": {
        "config": "JetMoeConfig",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "kv_channels": 8,
        "num_local_experts": 4,
    },
    "SwitchTransformers": {
        "class": "SwitchTransformersForConditionalGeneration",
        "config": "SwitchTransformersConfig",
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_sparse_encoder_layers": 1,
        "num_sparse_decoder_layers": 1,
        "num_heads": 4,
        "num_experts": 4,
        "decoder_start_token_id": 0,
    },
}
"""Models with matrices that no step compresses: they stay dense, and the run names them."""


_TEXT: dict[str, Any] = {
    **_HEADS,
    "vocab_size": 260,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_ROTATED = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
_TOWER |= {"num_hidden_layers": 1, "image_size": 28, "patch_size": 14, "num_channels": 3}
_QWEN_TOWER = {"depth": 1, "hidden_size": 32, "num_heads": 4, "patch_size": 14}
_QWEN_IDS = {
    "image_token_id": 255,
    "video_token_id": 254,
    "vision_start_token_id": 253,
    "vision_end_token_id": 252,
}

WRAPPERS: dict[str, dict[str, Any]] = {
    "Gemma3": {
        "text_config": {**_TEXT, "model_type": "gemma3_text", "sliding_window": 8},
        "vision_config": {**_TOWER, "model_type": "siglip_vision_model"},
        "mm_tokens_per_image": 4,
        "image_token_index": 255,
        "boi_token_index": 253,
        "eoi_token_index": 254,
    },
    "Llava": {
        "text_config": {**_TEXT, "model_type": "llama"},
        "vision_config": {**_TOWER, "model_type": "clip_vision_model"},
        "image_token_index": 255,
        "image_seq_length": 4,
    },
    "Qwen2VL": {
        "text_config": {**_TEXT, "rope_parameters": _ROTATED},
        "vision_config": {**_QWEN_TOWER, "embed_dim": 32, "mlp_ratio": 2},
        **_QWEN_IDS,
    },
    "Qwen2_5_VL": {
        "text_config": {**_TEXT, "rope_parameters": _ROTATED},
        "vision_config": {
            **_QWEN_TOWER,
            "out_hidden_size": 32,
            "intermediate_size": 48,
            "fullatt_block_indexes": [0],
        },
        **_QWEN_IDS,
    },
    "Mistral3": {
        "text_config": {**_TEXT, "model_type": "mistral"},
        "vision_config": {**_TOWER, "model_type": "pixtral", "head_dim": 8},
        "image_token_index": 255,
        "spatial_merge_size": 2,
    },
    "Idefics3": {
        "text_config": {**_TEXT, "model_type": "llama"},
        "vision_config": _TOWER,
        "image_token_id": 255,
        "scale_factor": 1,
    },
}
"""Models of images and texts, as ``<key>ForConditionalGeneration``."""


def wrapper_model(kind: str, seed: int = 0) -> PreTrainedModel:
    """Return a model of images and texts of random weights; ``kind`` is a key of ``WRAPPERS``."""
    config = getattr(transformers, f"{kind}Config")(**copy.deepcopy(WRAPPERS[kind]))
    torch.manual_seed(seed)
    model: PreTrainedModel = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    return model.eval()


def family_model(kind: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Return a model of random weights, in eval mode.

    ``kind`` is a key of these tables or of the one of :mod:`tests.tiny`; ``changes`` are made to
    its configuration.
    """
    values = {**(FAMILIES | PARTLY | ARCHITECTURES)[kind], **changes}
    name = values.pop("class", f"{kind}ForCausalLM")
    config = getattr(transformers, values.pop("config"))
    values = {"vocab_size": 260, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **values}
    torch.manual_seed(seed)
    model: PreTrainedModel = getattr(transformers, name)(config(**values))
    with torch.no_grad():  # what begins as zeros or ones would hide that it is rounded
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and (tensor.ndim == 1 or name.endswith("bias")):
                tensor.add_(0.01 * torch.randn(tensor.shape))
    return model.eval()


def family_folder(kind: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Save a model and its tokenizer as transformers does."""
    family_model(kind).to(dtype).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
