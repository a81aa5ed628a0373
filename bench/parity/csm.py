"""Makes the fixtures that the CSM adapter is compared with: a tiny random checkpoint and what transformers makes of it.

Run by hand when the fixtures are to change, with torch 2.11, transformers 5.23, peft 0.18 or later and tokenizers:

    python bench/parity/csm.py crates/tts/tests/csm

It writes
    pack/          the checkpoint as `save_pretrained` writes it, with a tokenizer, a reference recording and its text
    original/      the same weights in the layout of the original release, and nothing else
    lora-a, lora-b two PEFT adapters for it
    golden.safetensors
                   what each stage gives for the same input, in single precision

Weights are rounded to bfloat16 first, so that the files are half the size and the same to the last bit.
"""

import json
import shutil
import sys
import wave
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import CsmConfig, CsmForConditionalGeneration

BOOKS, CODES, VOCABULARY, FRAME, RATE = 8, 64, 67, 1920, 24_000
FRAMES = 12
REFERENCE = "This is how I sound."
TEXT = "Hello there, how are you?"
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|AUDIO|>", "<|audio_eos|>"]
LLAMA_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CORPUS = [
    "the quick brown fox jumps over the lazy dog while a bright moon shines and she walked slowly down the hill",
    "It was a bright cold day in April, and the clocks were striking thirteen. Hello there, how are you today?",
    "This is how I sound. I would like to tell you about the weather in the north, 1 2 3 4 5 6 7 8 9 0.",
]


def tokenizer(folder: Path) -> Tokenizer:
    made = Tokenizer(models.BPE(byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[], show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    made.add_special_tokens(SPECIAL)
    made.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A",
        special_tokens=[("<|begin_of_text|>", made.token_to_id("<|begin_of_text|>"))],
    )
    made.save(str(folder / "tokenizer.json"))
    return made


def config(made: Tokenizer) -> CsmConfig:
    def rope(low, high, original):
        return {
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 32.0,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        }

    return CsmConfig(
        num_codebooks=BOOKS,
        vocab_size=VOCABULARY,
        text_vocab_size=made.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=2048,
        rope_parameters=rope(0.125, 0.5, 1024),
        codebook_pad_token_id=VOCABULARY - 1,
        codebook_eos_token_id=0,
        bos_token_id=made.token_to_id("<|begin_of_text|>"),
        pad_token_id=made.token_to_id("<|AUDIO|>"),
        audio_token_id=made.token_to_id("<|AUDIO|>"),
        audio_eos_token_id=made.token_to_id("<|audio_eos|>"),
        depth_decoder_config={
            "num_codebooks": BOOKS,
            "vocab_size": VOCABULARY,
            "backbone_hidden_size": 64,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": BOOKS + 1,
            "rope_parameters": rope(0.001953125, 0.0078125, 16),
        },
        codec_config={
            "model_type": "mimi",
            "hidden_size": 32,
            "num_filters": 4,
            "codebook_size": CODES,
            "codebook_dim": 16,
            "vector_quantization_hidden_dimension": 16,
            "num_quantizers": BOOKS,
            "upsample_groups": 32,
            "num_hidden_layers": 2,
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "sliding_window": 250,
        },
    )


def spread(model, seed):
    """Random weights of a size with which every part matters; codes without a sound are never the best."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in list(model.named_parameters()) + list(model.named_buffers()):
            if "inv_freq" in name or "offsets" in name or not tensor.is_floating_point():
                continue
            last = name.rsplit(".", 1)[-1]
            noise = torch.randn(tensor.shape, generator=generator)
            if last in ("initialized",):
                tensor.fill_(1.0)
            elif last == "cluster_usage":
                tensor.copy_(noise.abs() + 0.5)
            elif last == "scale":
                tensor.copy_(0.3 + 0.05 * noise)
            elif "norm" in name and last == "weight":
                tensor.copy_(1.0 + 0.1 * noise)
            elif last == "bias":
                tensor.copy_(0.05 * noise)
            elif name.endswith("codebooks_head.weight"):
                tensor.copy_(noise / tensor.shape[1] ** 0.5 * 2)
                tensor[..., CODES:] = 0
            elif name == "lm_head.weight":
                tensor.copy_(noise / tensor.shape[1] ** 0.5 * 2)
                tensor[CODES:] = 0
            elif "embed" in name:
                tensor.copy_(noise)
            else:
                fan_in = tensor.shape[1:].numel() if tensor.dim() > 1 else 1
                tensor.copy_(noise / fan_in**0.5)
            tensor.copy_(tensor.to(torch.bfloat16).float())


def recording(folder: Path) -> torch.Tensor:
    """Four frames and a bit of something like a voice."""
    n = np.arange(FRAME * 4 + 700)
    pitch = 140 + 30 * np.sin(2 * np.pi * n / 9_000)
    phase = np.cumsum(2 * np.pi * pitch / RATE)
    voiced = sum(np.sin(k * phase) / k for k in range(1, 12))
    sound = 0.15 * voiced * (0.6 + 0.4 * np.sin(2 * np.pi * n / 4_000))
    pcm = np.clip(np.round(sound * 32768), -32768, 32767).astype(np.int16)
    (folder / "ref").mkdir()
    with wave.open(str(folder / "ref" / "ann.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(pcm.tobytes())
    (folder / "ref" / "ann.txt").write_text(REFERENCE + "\n")
    return torch.from_numpy(pcm.astype(np.float32) / 32768)


def original_layout(state, settings):
    """The inverse of what transformers' conversion does."""
    names = {
        "embed_text_tokens.weight": "text_embeddings.weight",
        "depth_decoder.model.inputs_embeds_projector.weight": "projection.weight",
        "lm_head.weight": "codebook0_head.weight",
        "depth_decoder.codebooks_head.weight": "audio_head",
        "backbone_model.norm.weight": "backbone.norm.scale",
        "depth_decoder.model.norm.weight": "decoder.norm.scale",
        "depth_decoder.model.embed_tokens.weight": "audio_embeddings.weight",
        "backbone_model.embed_tokens.embed_audio_tokens.weight": "audio_embeddings.weight",
    }
    parts = {
        "self_attn.q_proj.weight": "attn.q_proj.weight",
        "self_attn.k_proj.weight": "attn.k_proj.weight",
        "self_attn.v_proj.weight": "attn.v_proj.weight",
        "self_attn.o_proj.weight": "attn.output_proj.weight",
        "input_layernorm.weight": "sa_norm.scale",
        "post_attention_layernorm.weight": "mlp_norm.scale",
        "mlp.gate_proj.weight": "mlp.w1.weight",
        "mlp.down_proj.weight": "mlp.w2.weight",
        "mlp.up_proj.weight": "mlp.w3.weight",
    }
    stacks = {
        "backbone_model.layers.": ("backbone.layers.", settings),
        "depth_decoder.model.layers.": ("decoder.layers.", settings.depth_decoder_config),
    }
    made = {}
    for name, tensor in state.items():
        if name.startswith("codec_model."):
            continue
        if name in names:
            made[names[name]] = tensor.clone()
            continue
        for prefix, (new, shape) in stacks.items():
            if name.startswith(prefix):
                layer, part = name[len(prefix) :].split(".", 1)
                if part in ("self_attn.q_proj.weight", "self_attn.k_proj.weight"):
                    heads = shape.num_attention_heads if "q_proj" in part else shape.num_key_value_heads
                    rows, columns = tensor.shape
                    tensor = tensor.view(heads, 2, rows // heads // 2, columns).transpose(1, 2)
                    tensor = tensor.reshape(rows, columns)
                made[f"{new}{layer}.{parts[part]}"] = tensor.clone().contiguous()
                break
        else:
            raise SystemExit(f"{name} has no place in the original layout")
    return made


def describe(root: Path):
    """What makes voicepacks of the folders. Chance ends no turn, so a sentence ends where it is thought to."""
    about = "kind: tts\nfamily: {}\n{}description: {}\nlanguages: [en]\nsample_rate: 24000\ntags: [{}]\nlicense: CC0-1.0\n"
    voices = {
        "pack": ("csm", "", "Noise in the shape of speech, for tests.", "test"),
        "lora-a": ("csm-lora", "base: pack\n", "An adapter for it.", "test, lora"),
        "lora-b": ("csm-lora", "base: pack\n", "Another adapter for it.", "test, lora"),
    }
    for folder, fields in voices.items():
        (root / folder / "metadata.yaml").write_text(about.format(*fields))
        (root / folder / "voice.json").write_text('{"longest": 1.0}\n')


class Watch:
    """Keeps what each layer of a stack gives."""

    def __init__(self, layers):
        self.seen = [None] * len(layers)
        self.hooks = [layer.register_forward_hook(self.hook(n)) for n, layer in enumerate(layers)]

    def hook(self, n):
        def keep(_, __, output):
            self.seen[n] = (output[0] if isinstance(output, tuple) else output).detach().clone()

        return keep

    def close(self):
        for hook in self.hooks:
            hook.remove()


@torch.no_grad()
def stages(model, golden, prefix, prompt, reference, context):
    """Every stage of the model, with or without an adapter."""
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    backbone, depth = plain.backbone_model, plain.depth_decoder
    ids = torch.tensor([prompt])
    watch = Watch(backbone.layers)
    embedded = plain.embed_text_tokens(ids)
    hidden = backbone(inputs_embeds=embedded).last_hidden_state
    watch.close()
    golden[f"{prefix}text_embedding"] = embedded[0]
    for n, seen in enumerate(watch.seen):
        golden[f"{prefix}backbone_layer_{n}"] = seen[0]
    golden[f"{prefix}backbone"] = hidden[0]
    golden[f"{prefix}first_scores"] = plain.lm_head(hidden)[0, -1]

    given = torch.tensor([[(7 * n + 3) % CODES for n in range(BOOKS)]])
    watch = Watch(depth.model.layers)
    out = depth(
        input_ids=torch.nn.functional.pad(given[:, :-1], (1, 0)), backbone_last_hidden_state=hidden[:, -1].clone()
    )
    watch.close()
    golden[f"{prefix}given_codes"] = given[0].to(torch.int64)
    for n, seen in enumerate(watch.seen):
        golden[f"{prefix}depth_layer_{n}"] = seen[0]
    golden[f"{prefix}depth_scores"] = out.logits[0]

    for name, arguments in {
        "frames": {"input_ids": ids},
        "frames_with_reference": {
            "input_ids": torch.tensor([context + prompt]),
            "input_values": reference[None, None],
            "input_values_cutoffs": torch.tensor([[reference.numel()]]),
        },
    }.items():
        made = plain.generate(
            **arguments,
            attention_mask=torch.ones_like(arguments["input_ids"]),
            do_sample=False,
            max_new_tokens=FRAMES,
            depth_decoder_do_sample=False,
            output_audio=False,
        )
        made = made[0][-FRAMES:]
        assert made.shape == (FRAMES, BOOKS), made.shape
        assert int(made.max()) < CODES, "a code without a sound"
        golden[f"{prefix}{name}"] = made.to(torch.int64)


def adapter(model, folder, seed, **settings):
    made = get_peft_model(
        model,
        LoraConfig(
            r=4,
            lora_alpha=8,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            **settings,
        ),
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in made.named_parameters():
            if "lora_A" in name or ("lora_B" in name and "codec_model" not in name):
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.copy_((noise / tensor.shape[1] ** 0.5).to(torch.bfloat16).float())
    made.save_pretrained(folder)
    state = load_file(folder / "adapter_model.safetensors")
    save_file({k: v.to(torch.bfloat16) for k, v in state.items()}, folder / "adapter_model.safetensors")
    (folder / "README.md").unlink(missing_ok=True)
    return made


def main(root: Path):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for name in ("pack", "original", "lora-a", "lora-b"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)
    pack = root / "pack"
    made = tokenizer(pack)
    settings = config(made)
    settings._attn_implementation = "eager"
    model = CsmForConditionalGeneration(settings).eval().float()
    spread(model, 1)
    model.tie_weights()
    model.depth_decoder.generation_config.max_new_tokens = BOOKS - 1
    model.depth_decoder.generation_config.min_new_tokens = BOOKS - 1
    model.depth_decoder.generation_config.do_sample = False
    reference = recording(pack)

    golden = {}
    with torch.no_grad():
        codes = model.codec_model.encode(reference[None, None]).audio_codes[0]
        golden["reference_codes"] = codes.T.contiguous().to(torch.int64)
        generator = torch.Generator().manual_seed(2)
        sounding = torch.randint(0, CODES, (BOOKS, 30), generator=generator)
        golden["decoded_codes"] = sounding.T.contiguous().to(torch.int64)
        golden["decoded"] = model.codec_model.decode(sounding[None]).audio_values[0, 0]

    def turn(text, frames=0):
        ids = made.encode(f"<|begin_of_text|>[0]{text}<|end_of_text|>", add_special_tokens=False).ids
        if frames:
            ids = ids + [made.token_to_id("<|AUDIO|>")] * frames + [made.token_to_id("<|audio_eos|>")]
        return ids

    prompt, context = turn(TEXT), turn(REFERENCE, codes.shape[1])
    golden["prompt"] = torch.tensor(prompt)
    stages(model, golden, "", prompt, reference, context)

    model.save_pretrained(pack)
    (pack / "generation_config.json").unlink(missing_ok=True)
    state = load_file(pack / "model.safetensors")
    halved = {name: t.to(torch.bfloat16).contiguous() for name, t in state.items()}
    assert all(torch.equal(halved[n].float(), t.float()) for n, t in state.items())
    save_file(halved, pack / "model.safetensors", metadata={"format": "pt"})

    save_file(original_layout(halved, settings), root / "original" / "model.safetensors")
    codec = {n.removeprefix("codec_model."): t for n, t in halved.items() if n.startswith("codec_model.")}
    save_file(codec, root / "original" / "mimi.safetensors")

    one = adapter(model, root / "lora-a", 3, rank_pattern={"down_proj": 2}, alpha_pattern={"up_proj": 16})
    stages(one, golden, "lora_a.", prompt, reference, context)
    plain = one.unload()
    other = adapter(plain, root / "lora-b", 4, use_rslora=True)
    stages(other, golden, "lora_b.", prompt, reference, context)

    for folder in ("lora-a", "lora-b"):
        path = root / folder / "adapter_config.json"
        settings = json.loads(path.read_text())
        settings["base_model_name_or_path"] = "sesame/csm-1b"
        path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    describe(root)
    save_file({name: t.contiguous() for name, t in golden.items()}, root / "golden.safetensors")
    for file in sorted(root.rglob("*.*")):
        if file.is_file():
            print(f"{file.relative_to(root)}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
