"""The exact strategy in float32 on data as they come, against NumPy in float64."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

from deel_influence.errors import CurvatureWarning
from deel_influence.ihvp import ExactIHVP, InverseHessianVectorProduct, LoGraIHVP, WoodburyIHVP
from deel_influence.influence import FirstOrderInfluenceCalculator, NewtonStepInfluenceCalculator
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from tests.oracles import assert_close, relative_error

layers = keras.layers
EPS = float(np.finfo(np.float32).eps)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class SoftmaxRegression:
    """Softmax regression on some data in float32, and its algebra in float64.

    The weights are small, so that the logits are: what float32 loses is lost by the matrix alone.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, last: int = 40, **options: object) -> None:
        order = np.random.default_rng(0).permutation(len(x))
        self.x, self.y = x[order].astype("float32"), y[order].astype("int64")
        self.last = last
        self.classes = int(y.max()) + 1
        keras.utils.set_random_seed(0)
        dense = layers.Dense(self.classes, **options)
        self.network = keras.Sequential([keras.Input((x.shape[1],)), dense])
        scale = 1 / np.abs(self.x).sum(axis=1).max()
        dense.kernel.assign(scale * np.random.default_rng(1).normal(size=dense.kernel.shape))
        self.model = InfluenceModel(self.network, loss_function=LOSS)
        self.p = self.model.nb_params

    def batches(self, part: str = "train") -> tf.data.Dataset:
        chosen = slice(None, -self.last) if part == "train" else slice(-self.last, None)
        return tf.data.Dataset.from_tensor_slices((self.x[chosen], self.y[chosen])).batch(100)

    def terms(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all gradients ``(n, p)``, and the Hessian of the training loss, float64."""
        features = np.c_[self.x.astype(float), np.ones(len(self.x))]
        kernel = np.concatenate([w.reshape(-1, self.classes) for w in self.network.get_weights()])
        probabilities = softmax(features @ kernel.astype(float), axis=1)
        errors = probabilities - np.eye(self.classes)[self.y]
        rows = np.einsum("na,no->nao", features, errors).reshape(len(errors), -1)
        inner = np.einsum("no,oq->noq", probabilities, np.eye(self.classes))
        inner -= np.einsum("no,nq->noq", probabilities, probabilities)
        hessian = np.zeros((features.shape[1], self.classes) * 2)
        n = len(features) - self.last
        for o in range(self.classes):
            for q in range(self.classes):
                weighted = features[:n] * inner[:n, o, q, None]
                hessian[:, o, :, q] = weighted.T @ features[:n] / n
        return rows, hessian.reshape(self.p, self.p)

    def expected(self, damping: float | np.ndarray) -> np.ndarray:
        rows, hessian = self.terms()
        solved = np.linalg.solve(hessian + damping * np.eye(self.p), rows[: -self.last].T)
        return rows[-self.last :] @ solved

    def found(self, ihvp: object) -> np.ndarray:
        calculator = FirstOrderInfluenceCalculator(self.model, self.batches(), ihvp)
        return calculator.influence_matrix(self.batches("queries"), self.batches(), verbose=0)


def relu_features() -> tuple[np.ndarray, np.ndarray]:
    """Return features of size 5 to 10 that are zero half of the time, as late layers give them."""
    generator = np.random.default_rng(0)
    x = generator.uniform(5, 10, (600, 100)) * (generator.uniform(size=(600, 100)) < 0.5)
    return x, generator.integers(0, 10, 600)


DATA = {
    "digits": lambda: load_digits(return_X_y=True),
    "wine": lambda: load_wine(return_X_y=True),
    "breast-cancer": lambda: load_breast_cancer(return_X_y=True),
    "relu-features": relu_features,
}


@pytest.fixture(params=DATA, scope="module")
def problem(request) -> SoftmaxRegression:
    return SoftmaxRegression(*DATA[request.param]())


def test_a_damped_inverse_keeps_every_direction_on_data_as_they_come(problem):
    """At this damping ``p · eps · λ_max``, a cut-off by size, is above most eigenvalues."""
    largest = np.linalg.eigvalsh(problem.terms()[1])[-1]
    damping = float(largest * 3e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ihvp = ExactIHVP(problem.model, problem.batches(), damping=damping, verbose=0)
    assert ihvp.num_dropped == 0
    # The matrix is right to about one rounding of λ_max, over the smallest eigenvalue.
    assert_close(problem.found(ihvp), problem.expected(damping), EPS * largest / damping)


def test_the_newton_step_keeps_every_direction_too(problem):
    """Against the dense matrix without each of some examples, in float64."""
    rows, hessian = problem.terms()
    n = len(rows) - problem.last
    largest = np.linalg.eigvalsh(hessian)[-1]
    damping = float(largest * 1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = problem.batches()
        calculator = NewtonStepInfluenceCalculator(problem.model, data, damping)
        found = calculator.influence_matrix(problem.batches("queries"), data, verbose=0)
    total = n * hessian + (n - 1) * damping * np.eye(problem.p)
    features = np.c_[problem.x.astype(float), np.ones(len(rows))]
    kernel = np.concatenate(
        [w.reshape(-1, problem.classes) for w in problem.network.get_weights()]
    ).astype(float)
    for i in (0, 7, n - 1):
        pi = softmax(features[i] @ kernel)
        own = np.kron(np.outer(features[i], features[i]), np.diag(pi) - np.outer(pi, pi))
        step = np.linalg.solve(total - own, rows[i])
        # As above; without the example the smallest eigenvalue stays (n - 1) times the damping.
        assert_close(found[:, i], n * rows[-problem.last :] @ step, EPS * largest / damping)


@pytest.fixture(scope="module")
def digits() -> SoftmaxRegression:
    x, y = load_digits(return_X_y=True)
    return SoftmaxRegression(x[y < 4], y[y < 4])


def two_layers() -> tuple[BaseInfluenceModel, tf.data.Dataset]:
    """Return a network whose last layer has the softmax's directions, on inputs as they come."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((13,)), layers.Dense(4, "tanh"), layers.Dense(3)])
    x, y = load_wine(return_X_y=True)
    dataset = tf.data.Dataset.from_tensor_slices((x.astype("float32"), y)).batch(64)
    return BaseInfluenceModel(network, loss_function=LOSS), dataset


@pytest.mark.filterwarnings("ignore:ExactIHVP leaves out")
def test_a_layer_without_damping_leaves_another_ones_damping_alone():
    model, dataset = two_layers()
    first = model.layout.blocks[0].size
    reach = []
    for damping in ([0.0, 0.0], [0.0, 1e-3]):
        ihvp = ExactIHVP(model, dataset, curvature="gauss_newton", damping=damping, verbose=0)
        assert ihvp.num_dropped > 0
        _, vectors = np.linalg.eigh(ihvp.hessian)
        reach.append(np.abs(vectors[first:, : ihvp.num_dropped]).max())
    # The last layer shares the softmax's directions, until it is damped.
    assert reach[0] > 0.1
    assert reach[1] < 1e-5


def test_a_regulariser_makes_directions_safe_as_a_damping_does():
    factor = 1e-3
    x, y = load_digits(return_X_y=True)
    regularizer = keras.regularizers.L2(factor)
    problem = SoftmaxRegression(x[y < 4], y[y < 4], kernel_regularizer=regularizer)
    ihvp = ExactIHVP(problem.model, problem.batches(), verbose=0)
    # The bias is not regularised: one shift of all logits is left.
    assert ihvp.num_dropped == 1
    added = np.r_[np.full(problem.p - 4, 2 * factor), np.zeros(4)]
    rows, hessian = problem.terms()
    values, vectors = np.linalg.eigh(hessian + np.diag(added))
    expected = rows[-40:] @ (vectors[:, 1:] / values[1:]) @ (vectors[:, 1:].T @ rows[:-40].T)
    # Rounding of the matrix over its smallest eigenvalue, which the penalty gives.
    assert_close(problem.found(ihvp), expected, EPS * values[-1] / values[1])


def test_what_a_softmax_leaves_open_is_left_out_without_a_word():
    generator = np.random.default_rng(0)
    x = np.maximum(generator.normal(size=(300, 11)), 0)
    x[:, 4] = 0  # a feature that is never lit
    problem = SoftmaxRegression(x, generator.integers(0, 4, 300))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ihvp = ExactIHVP(problem.model, problem.batches(), damping=0.0, verbose=0)
        NewtonStepInfluenceCalculator(problem.model, problem.batches())
    # All four weights of the feature, and the shift of all logits along each other one.
    assert ihvp.num_dropped == 4 + 11


def test_curvature_that_is_lost_in_rounding_is_said_with_what_it_carries():
    """Two features that differ by less than float32 can tell of their squares."""
    generator = np.random.default_rng(0)
    one = generator.normal(size=(90, 1))
    x = np.c_[one, one + 1e-4 * generator.normal(size=(90, 1))] * 30
    problem = SoftmaxRegression(x, generator.integers(0, 3, 90))
    message = r"ExactIHVP leaves out 5 of 9 directions.*a part in 2 of them.*of vᵀH⁻¹v.*`damping`"
    with pytest.warns(CurvatureWarning, match=message):
        ExactIHVP(problem.model, problem.batches(), verbose=0)
    with pytest.warns(CurvatureWarning, match="NewtonStepInfluenceCalculator leaves out"):
        NewtonStepInfluenceCalculator(problem.model, problem.batches())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for damping in (1e-6, "auto"):
            ihvp = ExactIHVP(problem.model, problem.batches(), damping=damping, verbose=0)
            assert ihvp.num_dropped == 0
        ExactIHVP(problem.model, problem.batches(), rcond=1e-3, verbose=0)


def test_solving_for_what_is_left_out_is_said():
    problem = SoftmaxRegression(np.eye(3), np.arange(3), last=0)
    ihvp = ExactIHVP(problem.model, train_hessian=np.diag(np.r_[np.zeros(3), np.ones(9)]))
    with pytest.warns(CurvatureWarning, match="leaves out 3 of 12 directions"):
        solution = ihvp.solve(np.ones((1, 12)))
    assert_close(solution, np.r_[np.zeros(3), np.ones(9)][None])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ihvp.solve(np.r_[np.zeros(3), np.ones(9)][None])


def test_a_cutoff_of_ones_own_is_relative_to_the_damped_matrix():
    problem = SoftmaxRegression(np.eye(3), np.arange(3), last=0)
    matrix = np.diag(np.r_[np.arange(11.0), 99.0])
    ihvp = ExactIHVP(problem.model, train_hessian=matrix, damping=1.0, rcond=0.05)
    # 5 % of 100: the eigenvalues 1 to 5 go, damped as they are.
    assert (ihvp.num_dropped, ihvp.cutoff) == (5, 5.0)
    assert_close(ihvp.hessian, matrix + np.eye(12))
    assert_close(ihvp.condition_number, 100 / 6)
    keep_all = ExactIHVP(problem.model, train_hessian=matrix * 1e-12, damping=1e-12, rcond=0)
    assert keep_all.num_dropped == 0


@pytest.mark.filterwarnings("ignore:ExactIHVP leaves out")
@pytest.mark.parametrize(
    "options", [{"damping": 0.0}, {"damping": 1e-7}, {"damping": "auto"}, {"rcond": 1e-3}], ids=str
)
def test_a_loaded_fit_gives_the_same_products_to_the_bit(digits, options, tmp_path):
    fitted = ExactIHVP(digits.model, digits.batches(), verbose=0, **options)
    path = fitted.save(tmp_path / "fitted")
    loaded = InverseHessianVectorProduct.load(path, digits.model)
    vectors = tf.constant(digits.terms()[0][:5], tf.float32)
    for name in ("solve", "multiply"):
        products = [getattr(ihvp, name)(vectors).numpy() for ihvp in (fitted, loaded)]
        np.testing.assert_array_equal(*products)
    for name in ("num_dropped", "cutoff", "condition_number"):
        assert getattr(loaded, name) == getattr(fitted, name)
    assert loaded.fingerprint() == fitted.fingerprint()


def test_woodbury_counts_curvature_below_a_large_damping_threshold(digits):
    """Directions between rounding and p roundings of λ_max are curved, damped or not."""
    largest = np.linalg.eigvalsh(digits.terms()[1])[-1]
    damping = float(largest * 1e-5)
    few = tf.data.Dataset.from_tensor_slices((digits.x[:150], digits.y[:150])).batch(50)
    options = {"damping": damping, "regularizer": False}
    exact = ExactIHVP(digits.model, few, curvature="gauss_newton", verbose=0, **options)
    woodbury = WoodburyIHVP(digits.model, few, **options)
    vectors = tf.constant(digits.terms()[0][:20], tf.float32)
    # Both round λ_max, against the damping.
    limit = 4 * EPS * largest / damping
    assert relative_error(woodbury.solve(vectors), exact.solve(vectors)) < limit


@pytest.mark.parametrize("is_first_damped", [True, False])
def test_a_projection_keeps_a_damped_layer_beside_an_undamped_one(is_first_damped):
    model, dataset = two_layers()
    options = {"projection_dim": 4, "fisher": "expected", "seed": 0, "verbose": 0}
    matrix = LoGraIHVP(model, dataset, damping=1.0, **options).projected_curvature
    largest = np.linalg.eigvalsh(matrix)[-1]
    # Above the rounding of the matrix, and below k of them.
    damping = float(8 * EPS * largest)
    assert len(matrix) > 16
    dampings = [damping if is_first_damped else 0.0, damping]
    ihvp = LoGraIHVP(model, dataset, damping=dampings, **options)
    damped = matrix + np.diag(np.asarray(dampings)[ihvp.projection.layer_of_feature])
    projection = ihvp.projection.apply(tf.eye(model.nb_params)).numpy().astype(float)
    inverse = np.linalg.pinv(damped, rcond=4 * EPS, hermitian=True)
    vectors = np.random.default_rng(0).normal(size=(3, model.nb_params))
    expected = vectors @ projection @ inverse @ projection.T
    # Products in float32, in which nothing cancels: the vectors lie along all eigenvectors.
    assert_close(ihvp.solve(vectors.astype("float32")), expected, 1e-3)
