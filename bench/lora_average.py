"""How far the average of LoRA's two halves lies from the average of their products.

``python -m bench.lora_average RUN`` reads the adapters that a demo run with ``--silo-blocks local --adapter
lora`` left at its silos, and averages those of the silos' own layers with equal weights: A and B apart, as a
secure sum over both would, and their products, as training one adapter would need. With ``--freeze-a`` all
silos have the same A, and both are the same.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.tables import print_table

_A, _B = ".lora_A.weight", ".lora_B.weight"


def products_apart(adapters: Sequence[dict[str, Tensor]]) -> dict[str, float]:
    """Return, per adapted module whose B differs between silos, |mean B mean A - mean BA| / |mean BA|.

    Norms are Frobenius'; computed in fp64.
    """
    modules = sorted(name.removesuffix(_B) for name in adapters[0] if name.endswith(_B))
    found: dict[str, float] = {}
    for module in modules:
        halves_a = torch.stack([adapter[module + _A].double() for adapter in adapters])
        halves_b = torch.stack([adapter[module + _B].double() for adapter in adapters])
        if bool((halves_b == halves_b[0]).all()):
            continue  # the trunk's: all silos have the same
        mean_of_products = (halves_b @ halves_a).mean(0)
        product_of_means = halves_b.mean(0) @ halves_a.mean(0)
        found[module] = float((product_of_means - mean_of_products).norm() / mean_of_products.norm())
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of one run; returns 0."""
    parser = argparse.ArgumentParser(description="Average LoRA's halves apart, and their products.")
    parser.add_argument("run", type=Path, help="folder of a demo run")
    files = sorted(parser.parse_args(arguments).run.glob("silos/*/result/adapter_model.safetensors"))
    if not files:
        parser.error("no adapters there; run: trunkline demo --adapter lora --silo-blocks local --out RUN")
    distances = products_apart([load_file(file) for file in files])
    rows = [[module, f"{distance:.1e}"] for module, distance in distances.items()]
    title = f"A and B averaged apart, against their products ({len(files)} silos)"
    print_table(title, ["module", "relative distance"], rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
