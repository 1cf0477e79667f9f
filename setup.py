"""Build file: packages, dependencies and the `jxstilts` command. pyproject.toml only configures tools."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "jxstilts/__init__.py").read_text()).group(1)

TEST = [
    "pytest>=8",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "scikit-learn>=1.3",
    "seqeval>=1.2.2",  # only checks the metric "seqeval" on tags with a prefix; other tags it scores by other rules
    "setuptools>=77",  # tests/test_install.py builds a wheel without a network
]

setup(
    name="jxstilts",
    version=VERSION,
    description="English intermediate-task training for zero-shot cross-lingual transfer, in JAX/Flax",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[*find_packages(include=["jxstilts", "jxstilts.*"]), "jxstilts.configs", "jxstilts.docs"],
    # where there is no checkout, --config=configs/X.py is found there, and the pages docs/X.md that messages name
    package_dir={"jxstilts.configs": "configs", "jxstilts.docs": "docs"},
    package_data={"jxstilts.miniworld": ["micro/**/*"], "jxstilts.docs": ["*.md", "*.ipynb", "*.svg", "real_study/*"]},
    python_requires=">=3.11",
    install_requires=[
        "jax>=0.10.2,<0.13",
        "flax>=0.12.8",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "transformers>=5.23",
        "tensorflow-datasets>=4.9.10",
        "ml-collections>=1.1.0",
        "grain>=0.2.18",
        "tensorboardX>=2.6",
        "safetensors>=0.5",
        "huggingface_hub>=1.0",
        "tokenizers>=0.22",
        "sentencepiece>=0.2",
        "ml_dtypes>=0.5",
        "numpy>=2.0",
        "scipy>=1.13",
        "matplotlib>=3.9",
    ],
    extras_require={
        "cuda": ["jax[cuda13]>=0.10.2,<0.13"],
        "tpu": ["jax[tpu]>=0.10.2,<0.13"],
        "tfds": ["tensorflow>=2.18"],  # only to prepare the TFDS data sets that need it; never imported at run time
        "parity": ["torch==2.13.0"],
        "test": TEST,
        "dev": [*TEST, "ruff>=0.14"],
    },
    entry_points={"console_scripts": ["jxstilts=jxstilts.__main__:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)),
    ],
)
