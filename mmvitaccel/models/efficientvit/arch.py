"""Architectures of EfficientViT: the published ones, and the fields of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmvitaccel.arguments import config, whole_numbers

ARCHS: dict[str, dict[str, tuple[int, ...]]] = {
    name: dict(embed_dims=widths, depths=depths, num_heads=heads, kernels=kernels)
    for name, widths, depths, heads, kernels in (
        ("m0", (64, 128, 192), (1, 2, 3), (4, 4, 4), (5, 5, 5, 5)),
        ("m1", (128, 144, 192), (1, 2, 3), (2, 3, 3), (7, 5, 3, 3)),
        ("m2", (128, 192, 224), (1, 2, 3), (4, 3, 2), (7, 5, 3, 3)),
        ("m3", (128, 240, 320), (1, 2, 3), (4, 3, 4), (5, 5, 5, 5)),
        ("m4", (128, 256, 384), (1, 2, 3), (4, 4, 4), (7, 5, 3, 3)),
        ("m5", (192, 288, 384), (1, 3, 4), (3, 3, 4), (7, 5, 3, 3)),
    )
}
"""Table 1 of the paper; ``kernels`` are the kernel sizes of the query convolution of each head."""


def read_arch(arch: str | Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Return the fields of an architecture.

    Raises:
        ValueError: The name is unknown, or the fields do not describe a valid model.
    """
    fields = tuple(ARCHS["m0"])
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise ValueError(
                f"EfficientViT: arch='{arch}' is unknown; use one of {', '.join(ARCHS)} or a dict "
                f"with {', '.join(fields)}."
            )
        return dict(ARCHS[arch])
    config("EfficientViT", "arch", arch, what=f"one of {', '.join(ARCHS)} or a dict")
    if set(arch) != set(fields):
        raise ValueError(
            f"EfficientViT: arch has the fields {', '.join(sorted(map(str, arch)))}; it needs "
            f"{', '.join(fields)}."
        )
    arch = {field: whole_numbers("EfficientViT: arch", field, arch[field]) for field in fields}
    check_arch(arch)
    return arch


def check_arch(arch: Mapping[str, tuple[int, ...]]) -> None:
    """Check that the fields of an architecture are consistent.

    Raises:
        ValueError: They do not describe a valid model.
    """
    num_stages = len(arch["embed_dims"])
    for field in ("depths", "num_heads"):
        if len(arch[field]) != num_stages:
            raise ValueError(
                f"EfficientViT: arch has {num_stages} embed_dims but {field}={arch[field]}; give "
                "one for each stage."
            )
    for field in arch:
        if not arch[field] or min(arch[field]) < 1:
            raise ValueError(
                f"EfficientViT: arch has {field}={arch[field]}; give numbers of at least 1."
            )
    for width, heads in zip(arch["embed_dims"], arch["num_heads"]):
        if width % heads or width % 8:
            raise ValueError(
                f"EfficientViT: arch has a stage of {width} channels and {heads} heads; the "
                "channels must be a multiple of the heads and of 8."
            )
    kernels, heads = arch["kernels"], max(arch["num_heads"])
    if len(kernels) < heads or any(kernel % 2 == 0 for kernel in kernels):
        raise ValueError(
            f"EfficientViT: arch has kernels={kernels}; give an odd one for each of the {heads} "
            "heads."
        )


def name_arch(fields: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return the published model whose first stages have these fields, or None."""
    stages = len(fields["embed_dims"])
    heads = max(fields["num_heads"], default=0)
    for name, arch in ARCHS.items():
        same = all(
            arch[field][:stages] == tuple(fields[field])
            for field in ("embed_dims", "depths", "num_heads")
        )
        if same and arch["kernels"][:heads] == tuple(fields["kernels"])[:heads]:
            return name
    return None
