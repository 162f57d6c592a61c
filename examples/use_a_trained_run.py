"""Load a trained run, class images with it, and export it to a file that needs torch alone.

python use_a_trained_run.py RUN
"""

import sys
from pathlib import Path

from cdarts import load
from cdarts.data import load as load_data
from cdarts.export import Classifier, as_images, export

run = load(sys.argv[1])
print(run.state, run.genotype)

test = load_data("digits", image_size=run.card.side).test
classify = Classifier(run.card, run.model)
for logits, label in zip(classify(as_images(test.pixels[:5])), test.labels[:5], strict=True):
    print(f"image of class {label}: {run.card.class_names[int(logits.argmax())]}")

written = export(run.card, run.model, "module", Path("network.py"), test.pixels[:12])
print(*written.files, f"equal within {written.difference:.0e}")
