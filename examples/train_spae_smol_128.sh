#!/usr/bin/env bash
# The shipped model from nothing: public weights and pictures, the codebook, the training. Run it from the project's
# folder after `make env`. About an hour on two CPU cores with bfloat16 units; run it again to resume.
set -euo pipefail
out=${1:-runs/spae-smol-128}
cache=${SPAE_CACHE:-$(.venv/bin/python -c 'import platformdirs; print(platformdirs.user_cache_path("spae"))')}/assets
pictures=(comfyui-images comfyui-videos mate-backgrounds plasma-wallpapers openclipart)

.venv/bin/spae assets fetch smollm2 minilm efficientnet-lite0 lpips "${pictures[@]}"
.venv/bin/spae codebook --llm smollm2 --out "$out/codebook"
# 34 MB of WebP: to train on another machine, take it and the codebook along and run the last command there.
.venv/bin/spae crops "${pictures[@]/#/$cache/}" --max-pictures-per-input 600 --out "$out/crop-set"
.venv/bin/spae train --preset spae-smol-128 --codebook "$out/codebook" --data "$out/crop-set" --out "$out"
