"""Packaging: the package, and ``configs/`` and ``tools/`` as ``mmvitaccel/.mim`` for ``mim``."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# Each is pinned in requirements/<name>.txt. None is part of the default stack.
EXTRAS = (
    "app",
    "benchmarks",
    "browser",
    "deploy",
    "docs",
    "hosts",
    "mmpretrain",
    "serve",
    "test",
    "video",
)


def read_version() -> str:
    """Return ``__version__`` without importing the package, whose needs may be missing."""
    namespace: dict[str, str] = {}
    exec((ROOT / "mmvitaccel" / "version.py").read_text(), namespace)
    return namespace["__version__"]


def read_pins(name: str) -> list[str]:
    """Return the requirement lines of ``requirements/<name>.txt`` without comments."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


class BuildWithMim(build_py):
    """Copy what OpenMMLab's ``mim`` looks for in a wheel beside the modules."""

    def run(self) -> None:
        """Build the modules, then copy configs and tools; editable installs read the checkout."""
        super().run()
        if self.editable_mode:
            return
        mim = Path(self.build_lib) / "mmvitaccel" / ".mim"
        shutil.rmtree(mim, ignore_errors=True)
        for folder in ("configs", "tools"):
            shutil.copytree(
                ROOT / folder, mim / folder, ignore=shutil.ignore_patterns("__pycache__")
            )
        shutil.copy(ROOT / "model-index.yml", mim)


setup(
    name="mmvitaccel",
    version=read_version(),
    description="Fast vision transformers for OpenMMLab: EfficientViT, ToMe, Eventful",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    keywords="vision-transformer object-detection video OpenMMLab token-merging",
    python_requires=">=3.9",
    packages=find_packages(include=["mmvitaccel", "mmvitaccel.*"]),
    package_data={"mmvitaccel": ["py.typed", "core/kernels/*.cpp", "core/kernels/*.h"]},
    cmdclass={"build_py": BuildWithMim},
    # OpenMMLab's packages are not named here. mmcv or mmcv-lite, mmdet or a fork of it
    # provide the same import names; a requirement on one would replace what a user has.
    # `python -m mmvitaccel.env` says what is missing; `mmvitaccel[openmmlab]` installs it.
    install_requires=["torch>=2.1", "torchvision>=0.16", "timm>=1.0", "numpy"],
    extras_require={
        "openmmlab": read_pins("default"),
        **{name: read_pins(name) for name in EXTRAS},
    },
)
