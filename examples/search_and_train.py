"""Search an architecture on handwritten digits, train what was found, and look at it. Some seconds."""

from dataclasses import replace

from cdarts import retrain, search
from cdarts.presets import PRESETS
from cdarts.retraining import Retraining

found = search(replace(PRESETS["smoke"], cycles=1, search_cells=2, eval_cells=2), data="digits", out="runs/found")
print("genotype", found.genotype)

recipe = Retraining(cells=3, channels=6, epochs=3, batch_size=64, lr=0.1, auxiliary_weight=0.0, cutout=0)
trained = retrain(found, training=recipe, out="runs/trained")
for epoch in trained.metrics:
    print(f"epoch {epoch['epoch']}: loss {epoch['loss']:.2f}, test accuracy {epoch['test_accuracy']:.2f}")
print(f"{trained.summary['parameters']:,} parameters, test accuracy {trained.summary['test_accuracy']:.3f}")
