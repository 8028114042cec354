#!/usr/bin/env bash
# The shipped model from nothing: public weights and pictures, the codebook, the training. Run it from the project's
# folder after `make env`. About five hours on two CPU cores with bfloat16 units; run it again to resume.
set -euo pipefail
out=${1:-runs/spae-smol-128}
cache=${SPAE_CACHE:-$(.venv/bin/python -c 'import platformdirs; print(platformdirs.user_cache_path("spae"))')}/assets
pictures=(comfyui-images comfyui-videos mate-backgrounds plasma-wallpapers openclipart)

.venv/bin/spae assets fetch smollm2 minilm efficientnet-lite0 lpips "${pictures[@]}"
.venv/bin/spae codebook --llm smollm2 --out "$out/codebook"
# 34 MB of WebP: to train on another machine, take it and the codebook along and run the last commands there.
.venv/bin/spae crops "${pictures[@]/#/$cache/}" --max-pictures-per-input 600 --out "$out/crop-set"
.venv/bin/spae train --preset spae-smol-128 --codebook "$out/codebook" --data "$out/crop-set" --out "$out"
# First windows of a picture, many at once; then whole pictures, which is what the model is used on.
.venv/bin/spae train --initial-model "$out/model" --preset spae-smol-128 --recipe examples/refine_spae_smol_128.json \
    --data "$out/crop-set" --out "$out/refined"
# At last crops with as much detail as photographs have, and the perceptual loss on every picture.
.venv/bin/spae crops "${pictures[@]/#/$cache/}" --max-pictures-per-input 600 --crops-per-megapixel 60 --min-scale 0.3 \
    --frame-step 6 --min-webp-bytes 3300 --seed 1 --out "$out/detailed-crops"
.venv/bin/spae train --initial-model "$out/refined/model" --preset spae-smol-128 \
    --recipe examples/detail_spae_smol_128.json --data "$out/detailed-crops" --out "$out/detailed"
