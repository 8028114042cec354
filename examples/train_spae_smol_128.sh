#!/usr/bin/env bash
# The shipped model from nothing: public weights and pictures, the codebook, the training. Run it from the project's
# folder after `make env`. About an hour and a quarter on two CPU cores with bfloat16 units; run it again to resume.
set -euo pipefail
out=${1:-runs/spae-smol-128}
cache=${SPAE_CACHE:-$(.venv/bin/python -c 'import platformdirs; print(platformdirs.user_cache_path("spae"))')}/assets
pictures=(comfyui-images comfyui-videos mate-backgrounds plasma-wallpapers)

.venv/bin/spae assets fetch smollm2 minilm efficientnet-lite0 lpips "${pictures[@]}"
.venv/bin/spae codebook --llm smollm2 --out "$out/codebook"
.venv/bin/spae train --preset spae-smol-128 --codebook "$out/codebook" --out "$out" \
    --data "${pictures[@]/#/$cache/}"
