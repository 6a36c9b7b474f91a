"""The paper tier of every method beside the settings of its paper, written out here with their source.

Each entry is what a run of the method at ``tier=paper`` must hold, from the paper or its released code; ``heads`` are
the widths of the linear layers of the built network. What is known to differ stands in ``DECLARED``.
"""

import pytest
import torch
from timm.layers import DropPath
from torch import nn

from scd.training.schedules import Schedule
from studies.suite.planning.assembly import build_method, build_views
from studies.suite.planning.command_line import choices, resolve_settings
from studies.suite.planning.resolve import with_classes
from studies.suite.planning.study import Arm

MOCO = {  # facebookresearch/moco, main_moco.py with --mlp --moco-t 0.2 --aug-plus --cos; README: 8 GPUs, 200 epochs
    "optimizer.name": "sgd", "optimizer.lr": 0.03, "optimizer.momentum": 0.9, "optimizer.weight_decay": 1e-4,
    "optimizer.nesterov": False, "optimizer.exclude_bias_norm": False, "optimizer.clip": None,
    "schedule.name": "cosine", "schedule.per": "epoch", "schedule.warmup_epochs": 0, "schedule.final": 0,
    "training.batch_size": 256, "training.devices": 8, "training.budget": {"unit": "epochs", "value": 200},
    "views.recipe": "mocov2", "views.size": 224, "views.scale": [0.2, 1.0], "views.extra.count": 0,
    "method.dim": 128, "method.hidden": 2048, "method.queue_size": 65536, "method.momentum": 0.999,
    "method.temperature": 0.2, "method.symmetric": False, "method.bn_groups": 1,  # on each of the 8 GPUs
    "backbone.name": "resnet50", "heads": {"projector": [2048, 128]}, "blur": [(0.5, 1.0), (0.5, 1.0)],
}  # fmt: skip
NOT_INSLOCS = ("method.hidden", "method.symmetric", "heads", "blur")
LARS = {
    "optimizer.name": "lars", "optimizer.momentum": 0.9, "optimizer.trust": 0.001, "optimizer.nesterov": False,
    "optimizer.exclude_bias_norm": True, "optimizer.clip": None, "schedule.name": "cosine", "schedule.per": "step",
    "schedule.warmup_ramp": "t/W", "views.recipe": "byol", "views.size": 224, "views.scale": [0.08, 1.0],
    "backbone.name": "resnet50", "blur": [(1.0, 1.0), (0.1, 1.0)],
}  # fmt: skip
DINO = {  # facebookresearch/dino: defaults of main_dino.py; batch 1024 as in the paper, section 3.2
    "schedule.name": "cosine", "schedule.per": "step", "schedule.warmup_epochs": 10,
    "schedule.warmup_ramp": "t/(W-1)", "end of the learning rate": 1e-6, "optimizer.clip": 3.0,
    "optimizer.exclude_bias_norm": True, "training.batch_size": 1024,
    "training.budget": {"unit": "epochs", "value": 100}, "views.recipe": "byol", "views.size": 224,
    "views.extra.kind": "local", "views.extra.count": 8,
    "method.prototypes": 65536, "method.hidden": 2048, "method.bottleneck": 256, "method.momentum": 0.996,
    "method.momentum_schedule": "cosine", "method.student_temperature": 0.1, "method.teacher_temperature": 0.04,
    "method.teacher_temperature_warmup": 0, "method.centre_momentum": 0.9, "method.freeze_last": 1 / 100,
    "heads": {"projector": [2048, 2048, 256]}, "blur": [(1.0, 1.0), (0.1, 1.0), *[(0.5, 1.0)] * 8],
}  # fmt: skip
PAPERS = {
    "moco": MOCO,
    "moco_symmetric": {**MOCO, "method.symmetric": True},
    "dnc_experts": {  # arXiv 2105.08054 has a host of its own, MoCLR; here the host is MoCo v2 and an expert is like it
        **MOCO, "method.clusters": 5,
        "heads": {f"experts.{number}.projector": [2048, 128] for number in range(5)},
    },
    "divide_and_contrast": {
        **{key: value for key, value in MOCO.items() if not key.startswith(("method.", "heads"))},
        "method.clusters": 5, "method.dim": 128, "method.hidden": 2048, "method.base_weight": 0.5,
        "heads": {"projector": [2048, 128], "base_regressor": [2048, 128], "expert_regressors": [2048, 128] * 5},
    },
    "insloc": {  # limbo0000/InstanceLoc, configs/FPN/insloc_fpn_200ep.py; docs: for 8 GPUs with 32 images each
        **{key: value for key, value in MOCO.items() if key not in NOT_INSLOCS},
        "optimizer.nesterov": True, "views.recipe": "single", "views.size": 256, "views.scale": [1.0, 1.0],
        "method.size": 256, "method.scale": [0.2, 1.0], "method.ratio": [0.5, 2.0], "method.sides": [0.5, 1.0],
        "method.overlap": 0.5, "method.channels": 256, "method.roi": 7, "method.box_convs": 4, "method.box_layers": 2,
        "method.head_width": 1024, "method.photometric": "mocov2", "method.blur_reference": 256,
        "heads": {"box_head": [1024, 1024], "projector": [128]},
    },
    "asym_siam": {  # facebookresearch/asym-siam, main_moco.py with its defaults; README: 8 GPUs, 100 epochs
        **{key: value for key, value in MOCO.items() if key != "method.symmetric"},
        "training.budget": {"unit": "epochs", "value": 100}, "method.three_layers": True,
        **{f"method.{switch}": False for switch in ("scale_mix", "asym_aug", "asym_bn", "mean_enc")},
        "heads": {"projector": [2048, 2048, 128]},
    },
    "byol": {  # deepmind-research/byol, configs/byol.py for 300 epochs: base rate 0.3, weight decay 1e-6, m 0.99
        **LARS, "optimizer.lr": 0.3 * 4096 / 256, "optimizer.weight_decay": 1e-6, "schedule.warmup_epochs": 10,
        "schedule.warmup_start": 0, "end of the learning rate": 0, "training.batch_size": 4096,
        "training.budget": {"unit": "epochs", "value": 300}, "method.dim": 256, "method.hidden": 4096,
        "method.momentum": 0.99, "method.momentum_schedule": "cosine", "method.symmetric": True,
        "heads": {"projector": [4096, 256], "matcher.predictor": [4096, 256]},
    },
    "barlow_twins": {  # facebookresearch/barlowtwins, main.py: rates 0.2 and 0.0048 at 256, end 0.001 of the peak
        **LARS, "optimizer.lr": 0.2 * 2048 / 256, "optimizer.weight_decay": 1e-6, "schedule.warmup_epochs": 10,
        "schedule.warmup_start": 0, "end of the learning rate": 0.001 * 1.6, "training.batch_size": 2048,
        "training.budget": {"unit": "epochs", "value": 1000}, "method.off_diagonal": 0.0051,
        "method.bias_lr": 0.0048 / 0.2, "heads": {"projector": [8192, 8192, 8192]},
    },
    "slotcon": {  # CVMI-Lab/SlotCon, scripts/slotcon_imagenet_r50_200ep.sh and utils/lr_scheduler.py
        **LARS, "optimizer.lr": 1.0 * 512 / 256, "optimizer.weight_decay": 1e-5, "schedule.warmup_epochs": 5,
        "schedule.warmup_start": 1 / 100, "end of the learning rate": 1e-6, "training.batch_size": 512,
        "training.budget": {"unit": "epochs", "value": 200}, "method.dim": 256, "method.hidden": 4096,
        "method.prototypes": 2048, "method.momentum": 0.99, "method.momentum_schedule": "cosine",
        "method.student_temperature": 0.1, "method.teacher_temperature": 0.07, "method.slot_temperature": 0.2,
        "method.centre_momentum": 0.9, "method.weight": 0.5,
        "heads": {"projector": [4096, 4096, 256], "matcher.predictor": [4096, 4096, 256]},
    },
    "soco": {  # hologerry/SoCo, tools/SoCo_FPN_100ep.sh, contrast/option.py and lr_scheduler.py; 16 GPUs
        **LARS, "optimizer.lr": 1.0 * 2048 / 256, "optimizer.weight_decay": 1e-5, "schedule.warmup_epochs": 10,
        "schedule.warmup_start": 1 / 100, "end of the learning rate": 1e-6, "training.batch_size": 2048,
        "training.budget": {"unit": "epochs", "value": 100}, "views.scale": [0.5, 1.0], "views.extra.count": 1,
        "views.extra.size": 112, "views.extra.scale": [0.5, 1.0], "method.dim": 256, "method.hidden": 4096,
        "method.proposals": 4, "method.channels": 256, "method.roi": 7, "method.box_convs": 4, "method.jitter": 0.1,
        "method.jitter_probability": 0.5, "method.momentum": 0.99, "method.momentum_schedule": "cosine",
        "heads": {"box_head": [1024], "projector": [4096, 256], "matcher.predictor": [4096, 256]},
        "blur": [(1.0, 1.0), (0.1, 1.0), (0.1, 7 / 6)],
    },
    "detcon": {  # google-deepmind/detcon, detcon_b_config.py for 100 epochs: base rate 0.2, warm-up of epochs // 100
        **LARS, "optimizer.lr": 0.2 * 4096 / 256, "optimizer.weight_decay": 1.5e-6, "schedule.warmup_epochs": 1,
        "schedule.warmup_start": 0, "end of the learning rate": 0, "training.batch_size": 4096,
        "training.budget": {"unit": "epochs", "value": 100}, "method.dim": 256, "method.hidden": 4096,
        "method.regions": 16, "method.temperature": 0.1, "method.momentum": 0.996,
        "method.momentum_schedule": "cosine", "annotations.segments.scale": 1000,
        "annotations.segments.min_size": 1000,
        "heads": {"projector": [4096, 256], "matcher.predictor": [4096, 256]},
    },
    "odin": {  # as DetCon; views of its own
        **{name: value for name, value in LARS.items() if name != "blur" and not name.startswith("views.")},
        "optimizer.lr": 0.2 * 4096 / 256, "optimizer.weight_decay": 1.5e-6, "schedule.warmup_epochs": 1,
        "schedule.warmup_start": 0, "end of the learning rate": 0, "training.batch_size": 4096,
        "training.budget": {"unit": "epochs", "value": 100}, "views.recipe": "single", "views.size": 256,
        "views.scale": [1.0, 1.0], "method.size": 224, "method.scale": [0.08, 1.0], "method.whole_size": 256,
        "method.blur_reference": 224, "method.dim": 256, "method.hidden": 4096, "method.regions": 16,
        "method.temperature": 0.1, "method.momentum": 0.996, "method.momentum_schedule": "cosine",
        "heads": {"projector": [4096, 256], "matcher.predictor": [4096, 256]},
    },
    "orl": {  # Jiahao000/ORL, configs/selfsup/orl/coco/stage3/r50_bs512_ep800.py and datasets/orl.py, correspondence.py
        "optimizer.name": "sgd", "optimizer.lr": 0.4, "optimizer.momentum": 0.9, "optimizer.weight_decay": 1e-4,
        "optimizer.nesterov": False, "optimizer.exclude_bias_norm": False, "optimizer.clip": None,
        "schedule.name": "cosine", "schedule.per": "epoch", "schedule.warmup_epochs": 4, "schedule.warmup_start": 1e-4,
        "schedule.warmup_ramp": "t/W", "schedule.final": 0, "training.batch_size": 512, "training.devices": 8,
        "training.budget": {"unit": "epochs", "value": 800}, "views.recipe": "single", "views.size": 256,
        "views.scale": [1.0, 1.0], "method.size": 224, "method.patch_size": None, "method.scale": [0.08, 1.0],
        "method.top": 0.1, "method.dim": 256, "method.hidden": 4096, "method.momentum": 0.99,
        "method.momentum_schedule": "cosine", "method.blur_reference": 224, "backbone.name": "resnet50",
        "annotations.boxes.least_side": 0, "annotations.boxes.largest_aspect": None,
        "annotations.boxes.least_share": 0, "annotations.boxes.largest_share": 1,
        "annotations.boxes.colour_spaces": ["hsv", "lab"],
        "heads": {
            "siamese.projector": [4096, 256], "siamese.matcher.predictor": [4096, 256],
            "intra_matcher.predictor": [4096, 256], "inter_matcher.predictor": [4096, 256],
        },
    },
    "simsiam": {  # facebookresearch/simsiam, main_simsiam.py with --fix-pred-lr: rate 0.05 at 256
        "optimizer.name": "sgd", "optimizer.lr": 0.05 * 512 / 256, "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 1e-4, "optimizer.exclude_bias_norm": False, "optimizer.clip": None,
        "schedule.name": "cosine", "schedule.per": "epoch", "schedule.warmup_epochs": 0, "schedule.final": 0,
        "training.batch_size": 512, "training.budget": {"unit": "epochs", "value": 100}, "views.recipe": "mocov2",
        "views.size": 224, "views.scale": [0.2, 1.0], "method.fix_predictor_lr": True, "backbone.name": "resnet50",
        "heads": {"projector": [2048, 2048, 2048], "matcher.predictor": [512, 2048]}, "blur": [(0.5, 1.0)] * 2,
    },
    "supervised": {  # Goyal et al., arXiv 1706.02677, section 5.1
        "optimizer.name": "sgd", "optimizer.lr": 0.1, "optimizer.momentum": 0.9, "optimizer.nesterov": True,
        "optimizer.weight_decay": 1e-4, "optimizer.exclude_bias_norm": True, "schedule.warmup_epochs": 5,
        "training.batch_size": 256, "training.budget": {"unit": "epochs", "value": 90}, "views.recipe": "single",
        "views.size": 224, "views.scale": [0.08, 1.0], "views.photometric": "none", "backbone.name": "resnet50",
    },
    "mae": {  # facebookresearch/mae, PRETRAIN.md: blr 1.5e-4 at 256
        "optimizer.name": "adamw", "optimizer.lr": 1.5e-4 * 4096 / 256, "optimizer.betas": [0.9, 0.95],
        "optimizer.weight_decay": 0.05, "optimizer.exclude_bias_norm": True, "optimizer.clip": None,
        "schedule.name": "cosine", "schedule.per": "step", "schedule.warmup_epochs": 40,
        "schedule.warmup_ramp": "t/W", "schedule.final": 0, "training.batch_size": 4096,
        "training.budget": {"unit": "epochs", "value": 800}, "views.recipe": "single", "views.size": 224,
        "views.scale": [0.2, 1.0], "views.photometric": "none", "method.mask_ratio": 0.75,
        "method.norm_pix_loss": True, "backbone.patch_size": 16, "backbone.embed_dim": 768, "backbone.depth": 12,
        "backbone.num_heads": 12, "backbone.mlp_ratio": 4, "backbone.drop_path_rate": 0,
    },
    "dino": {
        **DINO, "optimizer.name": "adamw", "optimizer.lr": 5e-4 * 1024 / 256, "optimizer.weight_decay": 0.04,
        "schedule.final_weight_decay": 0.4, "views.scale": [0.4, 1.0], "views.extra.scale": [0.05, 0.4],
        "backbone.patch_size": 16, "backbone.embed_dim": 384, "backbone.depth": 12, "backbone.num_heads": 6,
        "backbone.drop_path_rate": 0.1,
    },
    "dino on a ResNet": {  # README: --arch resnet50 --optimizer sgd --lr 0.03 --weight_decay 1e-4 (constant)
        **DINO, "optimizer.name": "sgd", "optimizer.lr": 0.03 * 1024 / 256, "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 1e-4, "schedule.final_weight_decay": None, "views.scale": [0.14, 1.0],
        "views.extra.scale": [0.05, 0.14], "backbone.name": "resnet50",
    },
    "dinov2": {  # facebookresearch/dinov2, ssl_default_config.yaml and vitl16_short.yaml: 32 GPUs, 100 times 1250 steps
        **{key: value for key, value in DINO.items() if key != "method.teacher_temperature"},
        "optimizer.name": "adamw", "optimizer.lr": 0.004 * (2048 / 1024) ** 0.5, "optimizer.weight_decay": 0.04,
        "schedule.final_weight_decay": 0.4, "schedule.warmup_epochs": 20, "training.batch_size": 2048,
        "training.budget": {"unit": "epochs", "value": 200}, "views.scale": [0.32, 1.0],
        "views.extra.scale": [0.05, 0.32], "method.momentum": 0.992, "method.teacher_temperature_start": 0.04,
        "method.teacher_temperature": 0.07, "method.teacher_temperature_warmup": 30 / 100, "method.koleo_weight": 0.1,
        "method.patch_weight": 1.0, "method.shared_head": True, "method.centring": "centre",
        "method.mask_probability": 0.5, "method.mask_ratio": [0.1, 0.5], "method.layer_decay": 0.9,
        "method.patch_embed_lr": 0.2, "backbone.patch_size": 16, "backbone.embed_dim": 1024, "backbone.depth": 24,
        "backbone.num_heads": 16, "backbone.drop_path_rate": 0.3, "backbone.init_values": 1e-5,
    },
    "groupvit": {  # NVlabs/GroupViT, configs/default.yml and group_vit_gcc_yfcc_30e.yml: 256 images on each of 16 GPUs
        "optimizer.name": "adamw", "optimizer.lr": 1.6e-3, "optimizer.weight_decay": 0.05, "optimizer.clip": 5.0,
        "optimizer.exclude_bias_norm": True, "schedule.name": "cosine", "schedule.per": "step",
        "schedule.warmup_epochs": 2, "schedule.warmup_start": 4e-6 / 1.6e-3, "schedule.warmup_ramp": "t/W",
        "end of the learning rate": 4e-5, "training.batch_size": 4096,
        "training.budget": {"unit": "epochs", "value": 30}, "views.recipe": "single", "views.size": 224,
        "views.scale": [0.08, 1.0], "method.groups": [64, 8],
        "method.blocks": [6, 3, 3], "method.text_width": 256, "method.text_depth": 12, "method.text_heads": None,
        "method.nouns": 3, "method.noun_weight": 1.0, "method.temperature": 0.07, "method.largest_scale": 100,
        "method.background": 0.95, "backbone.patch_size": 16, "backbone.embed_dim": 384, "backbone.depth": 12,
        "backbone.num_heads": 6, "backbone.mlp_ratio": 4, "backbone.drop_path_rate": 0.1,
        "heads": {"projector": [4096, 256], "text_projector": [4096, 256]},
    },
}  # fmt: skip
DECLARED = {  # what differs from the paper, by the points that the configuration declares
    "dnc_experts": {"host", "batches"}, "divide_and_contrast": {"stages", "heads"},
    "moco": set(), "moco_symmetric": set(), "mae": set(), "asym_siam": {"MultiCrop", "RandAugment"},
    "insloc": {"levels", "backgrounds", "anchors", "initial weights", "transfer"},
    "byol": {"batch norm", "colours"}, "simsiam": {"batch norm", "initial weights"},
    "barlow_twins": {"batch norm", "initial weights"}, "slotcon": {"batch norm", "crops", "data"},
    "soco": {"batch norm", "crops", "cutouts", "proposals", "third view", "transfer"},
    "orl": {"stage 1", "neighbours", "pairs", "proposals", "batch norm", "schedule", "initial weights"},
    "detcon": {"batch norm", "colours", "segments"},
    "odin": {"reconstruction", "networks", "regions", "batch norm", "colours"},
    "supervised": {"schedule", "initial weights"},
    "dino": {"evaluated network"},
    "dinov2": {"evaluated network", "last layer", "clipping", "stochastic depth"},
    "groupvit": {"captions", "batch norm", "weight decay", "clipping", "colours", "schedule", "data"},
    "dino on a ResNet": {"evaluated network", "batch norm", "epochs"},
}  # fmt: skip
every_method = pytest.mark.parametrize("name", PAPERS)


@pytest.fixture(scope="module")
def configs():
    """The configuration of a run of each method at the paper tier."""
    paper, on_vit = resolve_settings("multicrop", ["tier=paper"]), resolve_settings("dino_vit", ["tier=paper"])
    found = {}
    for name in PAPERS:
        settings = on_vit if name == "dino" else paper
        found[name] = settings.configure(Arm("x", "", {"method": name.split()[0]}, "", ""), 0)
    return found


def held(config, key):
    """What a configuration holds under a key like ``optimizer.lr``."""
    if key == "end of the learning rate":
        return config["optimizer"]["lr"] * config["schedule"]["final"]
    for part in key.split("."):
        config = config[part]
    return config


@every_method
def test_the_paper_tier_holds_the_papers_settings(name, configs):
    asked = {key: value for key, value in PAPERS[name].items() if key not in ("heads", "blur")}
    wrong = {}
    for key, value in asked.items():
        found = held(configs[name], key)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if found != (pytest.approx(value, rel=1e-6, abs=1e-12) if number else value):
            wrong[key] = (found, value)
    assert not wrong


def test_no_method_is_without_its_papers_settings():
    assert {name.split()[0] for name in PAPERS} == set(choices("method")) and set(DECLARED) == set(PAPERS)


@every_method
def test_what_differs_is_declared(name):
    on_vit = resolve_settings("dino_vit" if name == "dino" else "multicrop", ["tier=paper"])
    declared = on_vit.deviations(Arm("x", "", {"method": name.split()[0]}, "", ""))
    assert {point for sentences in declared.values() for point in sentences} == DECLARED[name]


@every_method
def test_the_schedule_and_the_views_can_be_built(name, configs):
    config = configs[name]
    schedule = Schedule(**config["schedule"])
    factors = [schedule.factor(step, 1000 * 5, 5) for step in (0, 25, 4999)]
    assert 0 <= factors[0] <= 1 and 0 < factors[1] <= 1 and factors[2] < max(1e-2, 1.01 * schedule.final)
    crops = build_views(config).crops
    if "blur" in PAPERS[name]:  # probability, and sigma over that of the paper (0.1 to 2 px)
        from scd.data.photometric import photometric

        assert [(photometric(crop.photometric).blur_p, crop.sigma_scale) for crop in crops] == [
            (p, pytest.approx(scale)) for p, scale in PAPERS[name]["blur"]
        ]


@pytest.mark.parametrize("name", [name for name in PAPERS if "heads" in PAPERS[name]])
def test_heads_have_the_papers_widths(name, configs):
    config = {**configs[name], "method": with_classes(configs[name]["method"], 1000, "ImageNet")}
    with torch.device("meta"):
        method = build_method(config)
    for head, widths in PAPERS[name]["heads"].items():
        layers = [part for part in method.get_submodule(head).modules() if isinstance(part, nn.Linear)]
        assert [layer.out_features for layer in layers] == widths


def test_maes_decoder_is_the_papers(configs):
    with torch.device("meta"):
        method = build_method(configs["mae"])
    blocks = [part for part in method.decoder.modules() if type(part).__name__ == "Block"]
    assert len(blocks) == 8 and blocks[0].attn.num_heads == 16 and blocks[0].norm1.normalized_shape == (512,)


def test_dinos_drop_path_is_in_the_student_alone(configs):
    """0.1 in the last block, rising linearly from 0 (timm), as in DINO's vision_transformer.py."""
    with torch.device("meta"):
        method = build_method(configs["dino"])
    rates = [
        [part.drop_prob for part in network.modules() if isinstance(part, DropPath)]
        for network in (method.backbone, method.target_backbone)
    ]
    assert max(rates[0]) == pytest.approx(0.1) and len(rates[0]) >= 11 * 2
    assert not any(rates[1])


def test_tiers_below_paper_keep_their_sizes():
    """The papers' head widths and crops belong to the paper tier alone."""
    for tier in ("smoke", "cpu", "gpu"):
        settings = resolve_settings("multicrop", [f"tier={tier}"])
        sizes = {name: settings.configure(Arm("x", "", {"method": name}, "", ""), 0) for name in choices("method")}
        assert sizes["byol"]["method"]["dim"] == sizes["moco"]["method"]["dim"]
        assert sizes["dino"]["views"]["extra"]["count"] == 4 and sizes["slotcon"]["method"]["prototypes"] == 32
        assert sizes["byol"]["optimizer"]["name"] == "sgd"
