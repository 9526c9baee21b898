"""llama.cpp's own server on loopback, with a tiny model that the tests make and save as GGUF.

The model is a llama of one layer. After a space or a quotation mark its letters have logits that
are stated; every token attends to all before it alike, and of a picture it sees two numbers, how
red and how blue it is, which raise the letters A and C.
"""

import numpy as np

TEMPLATE = """\
{% for message in messages %}{{ message.role }}: {% if message.content is string %}\
{{ message.content }}{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}\
{% endif %}
{% endfor %}assistant: """
WIDTH, SIDE, PATCH = 264, 28, 14  # of embeddings; pixels of a picture and of a patch
RED, BLUE = WIDTH - 2, WIDTH - 1  # dimensions that no token has


def byte_names():
    """Names of the bytes, as in GPT-2's vocabulary."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def write_model(path, logits):
    """Save a model of bytes which says letters with these logits, as {"A": 2.0, "B": 1.0}."""
    import gguf

    names = ["<s>", "</s>", *byte_names(), "ĠĠ"]  # the file must have a merge
    file = gguf.GGUFWriter(path, "llama")
    file.add_context_length(8192)
    file.add_embedding_length(WIDTH)
    file.add_block_count(1)
    file.add_feed_forward_length(32)
    file.add_head_count(2)
    file.add_layer_norm_rms_eps(1e-5)
    file.add_rope_dimension_count(WIDTH // 2)
    file.add_vocab_size(len(names))
    file.add_tokenizer_model("gpt2")
    file.add_tokenizer_pre("default")
    file.add_token_list(names)
    file.add_token_types([3, 3] + [1] * (len(names) - 2))
    file.add_token_merges(["Ġ Ġ"])
    file.add_bos_token_id(0)
    file.add_eos_token_id(1)
    file.add_add_bos_token(False)
    file.add_chat_template(TEMPLATE)
    head = np.zeros((len(names), WIDTH), np.float32)
    for letter, logit in logits.items():
        head[names.index(letter), [names.index("Ġ"), names.index('"')]] = logit / WIDTH**0.5
        head[[1, names.index('"')], names.index(letter)] = 1  # then the end
    head[names.index("A"), RED] = head[names.index("C"), BLUE] = 2
    seen = np.zeros((WIDTH, WIDTH), np.float32)
    seen[[RED, BLUE], [RED, BLUE]] = 1
    tensors = {"token_embd": np.eye(len(names), WIDTH), "output": head, "output_norm": ones(WIDTH)}
    tensors |= {f"blk.0.{name}_norm": ones(WIDTH) for name in ("attn", "ffn")}
    tensors |= {f"blk.0.attn_{name}": np.zeros((WIDTH, WIDTH)) for name in ("q", "k")}
    tensors |= {f"blk.0.attn_{name}": seen for name in ("v", "output")}
    tensors |= {f"blk.0.ffn_{name}": np.zeros((32, WIDTH)) for name in ("gate", "up")}
    save(file, tensors | {"blk.0.ffn_down": np.zeros((WIDTH, 32))})


def write_projector(path, width=8):
    """Save the part that reads pictures: mean red and blue of each patch, nothing more."""
    import gguf

    file = gguf.GGUFWriter(path, "clip")
    file.add_clip_has_vision_encoder(True)
    file.add_clip_projector_type("mlp")
    file.add_vision_use_gelu(True)
    file.add_vision_image_size(SIDE)
    file.add_vision_patch_size(PATCH)
    file.add_vision_embedding_length(width)
    file.add_vision_feed_forward_length(width)
    file.add_vision_projection_dim(WIDTH)
    file.add_vision_block_count(1)
    file.add_vision_head_count(1)
    file.add_vision_attention_layernorm_eps(1e-5)
    file.add_vision_image_mean([0.5] * 3)
    file.add_vision_image_std([0.5] * 3)
    patches, shown = np.zeros((width, 3, PATCH, PATCH)), np.zeros((WIDTH, width))
    patches[[0, 1], [0, 2]] = 1 / PATCH**2
    shown[[RED, BLUE], [0, 1]] = 1
    tensors = {"v.patch_embd": patches, "v.position_embd": np.zeros(((SIDE // PATCH) ** 2, width))}
    for name in ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down"):
        tensors[f"v.blk.0.{name}"] = np.zeros((width, width))
    tensors |= {"v.blk.0.ln1": ones(width), "v.blk.0.ln2": ones(width)}
    tensors |= {"mm.0": np.eye(width), "mm.2": shown}
    biases = {name: np.zeros(len(x)) for name, x in tensors.items() if "embd" not in name}
    save(file, tensors, biases)


def ones(count):
    return np.ones(count)


def save(file, weights, biases=()):
    for name, values in weights.items():
        file.add_tensor(f"{name}.weight", np.asarray(values, np.float32))
    for name in biases:
        file.add_tensor(f"{name}.bias", np.asarray(biases[name], np.float32))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def serve_llama(folder, logits, key):
    """Start the server in this process; returns it, which stops once nobody has it any more."""
    import xllamacpp

    write_model(folder / "model.gguf", logits)
    write_projector(folder / "projector.gguf")
    given = xllamacpp.CommonParams()
    given.model.path, given.mmproj.path = (f"{folder}/{x}.gguf" for x in ("model", "projector"))
    given.hostnames, given.port, given.api_keys = ["127.0.0.1"], 0, [key]
    given.n_ctx, given.n_parallel, given.cpuparams.n_threads = 16384, 2, 1
    given.warmup = given.fit_params = False
    given.offline, given.verbosity = True, 0
    return xllamacpp.Server(given)
