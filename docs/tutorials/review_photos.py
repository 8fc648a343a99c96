# %% [markdown]
# # From a folder of photos to a better model
#
# A folder of photos, one sub-folder for each class, and some of the photos lie in the wrong one.
# Six steps: train, ask which labels are wrong, look at the page, decide, apply the decisions, and
# train again. Here the photos are handwritten digits that come with scikit-learn, and a fifth of
# them is put into a wrong folder, so that the gain can be measured.

# %%
from pathlib import Path

import keras
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image
from sklearn.datasets import load_digits

from deel_influence.baselines import LossScore
from deel_influence.common import InfluenceModel
from deel_influence.datasets import DataSource, flip_labels, load_source
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.labels import Decisions, apply_decisions, find_label_issues, run_digest
from deel_influence.report import run_triage, write_report

digits = load_digits()
shuffled = np.random.default_rng(0).permutation(len(digits.target))
images, truth = digits.images[shuffled], digits.target[shuffled]
labels, _ = flip_labels(truth[:1000], fraction=0.2, seed=0)
test_images, test_labels = images[1000:, ..., np.newaxis] * 16, truth[1000:]

for number, (image, label) in enumerate(zip(images, labels, strict=False)):
    path = Path("photos") / f"digit {label}" / f"{number:04}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image * 15.9).astype(np.uint8)).save(path)
print(len(list(Path("photos").rglob("*.png"))), "photos, such as", path.as_posix())

# %% [markdown]
# ## Train
#
# `load_source` reads the folder, as the command line does. File names are the ids of the photos.
# How good the network is, 797 other photos tell, whose labels are right.


# %%
def network() -> keras.Model:
    """Return an untrained network: photos (8, 8, 1) to the logits of ten classes."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss, metrics=["accuracy"])
    return model


def train(source: DataSource) -> tuple[keras.Model, float]:
    """Return a network trained on photos, and its accuracy on the test photos."""
    keras.utils.set_random_seed(0)
    model = network()
    x, y = (np.concatenate(part) for part in zip(*source.dataset, strict=True))
    model.fit(x, y, batch_size=64, epochs=15, verbose=0)
    return model, model.evaluate(test_images, test_labels, verbose=0, return_dict=True)["accuracy"]


photos = load_source("photos")
model, before = train(photos)
print(f"{before:.1%} of the test photos are told right")

# %% [markdown]
# ## Which labels are wrong?

# %%
wrapped = InfluenceModel(model)
issues = find_label_issues(wrapped, photos, verbose=0)
print(issues)

# %% [markdown]
# ## The page
#
# The page has the estimate, the order, a suggestion for each photo, and the reasons: the nearest
# photos with their labels and, given a calculator, the photos that the label was learnt from.
# `display=` names the files, so that the page shows them as they are. On the command line all of
# this is `deel-influence triage --model model.keras --data photos`.

# %%
triage = run_triage(wrapped, LossScore(wrapped), photos, verbose=0)
page = write_report(
    "review",
    triage,
    photos,
    top=200,
    display=photos.file_names,
    issues=issues,
    calculator=FirstOrderInfluenceCalculator(wrapped, photos, "auto"),
)
print(page)

# %% [markdown]
# The same in a figure: the first five photos, each with the three that the network takes for the
# most similar ones.

# %%
file_of = dict(zip(photos.ids, photos.file_names, strict=True))
label_of = dict(zip(issues.ids, issues.labels, strict=True))
figure, grid = plt.subplots(4, 5, figsize=(6.5, 6), layout="constrained")
for column, position in zip(grid.T, issues.order[:5], strict=True):
    for axes, name in zip(
        column, [issues.ids[position], *issues.neighbours[position, :3]], strict=True
    ):
        axes.imshow(Image.open(file_of[name]), cmap="gray_r")
        axes.set_title(issues.label_text(label_of[name]), fontsize="medium")
        axes.set(xticks=[], yticks=[])
grid[0, 0].set_ylabel("photo")
grid[2, 0].set_ylabel("nearest photos")
figure.suptitle("The most suspicious labels, and the labels of the nearest photos")

# %% [markdown]
# ## Decide
#
# A person opens the page, reads as far as wrong labels turn up, and exports `decisions.csv`. Here
# the truth stands for the person: it looks at the first photos of the list, as many as are
# estimated to be wrong, keeps what is right, and gives the right class to the others.

# %%
read = issues.order[: issues.estimated_number]
right = np.array([truth[int(Path(name).stem)] for name in issues.ids[read]])
is_wrong = issues.labels[read] != right
names = np.array(issues.class_names)
decisions = Decisions(
    ids=issues.ids[read],
    decisions=np.where(is_wrong, "relabel", "keep"),
    labels=np.where(is_wrong, names[right], ""),
    run=run_digest(issues.ids, issues.labels),
)
decisions.save("decisions.csv")
agreed = np.mean(issues.suggested[read][is_wrong] == right[is_wrong])
print(f"{is_wrong.sum()} of the {len(read)} labels read were wrong")
print(f"the suggestion was right for {agreed:.0%} of those")

# %% [markdown]
# ## Apply, and train again
#
# `apply_decisions` returns the photos with their new labels, and leaves the folder as it is;
# `deel-influence apply --data photos --decisions decisions.csv --out clean` writes a new folder.

# %%
clean = apply_decisions(photos, Decisions.load("decisions.csv"))
_, after = train(clean)
print(f"test accuracy: {before:.1%} before, {after:.1%} after")

# %% [markdown]
# A second round, with the new network, finds what the first one left: the better the network, the
# better the order. [Review and correct labels](../review.md) tells more of the page and of
# decisions, and [Label issues](../labels.md) what the signals are.

# %% tags=["remove-cell"]
assert is_wrong.mean() > 0.8
assert agreed > 0.8
assert after > before
