"""The paper's experiments in models/: their solver files and their nets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from caffe_clr import parity, policies, prototxt
from caffe_clr.harness.compilation import Tree
from caffe_clr.method import schedule
from caffe_clr.runs import solvers

# The columns of the table below, and how a cell reads in a prototxt.
FIELDS = {
    **{"type": "'{}'", "lr_policy": "'{}'", "base_lr": "{}", "max_lr": "{}", "stepsize": "{}"},
    **{"gamma": "{}", "stepvalue": "[{}]", "start_lr_policy": "{}", "max_iter": "{}"},
}
# From the paper: Tables 1 to 4, Figures 3, 4, 6, 7 and 11, and sections 4.1 and 4.2; where it
# names Caffe's own solvers, from those. A dash is a field that is not set.
PAPER = """
cifar10_full/fixed         - multistep   0.001   -       -    0.1     60000,65000 -     70000
cifar10_full/triangular    - triangular  0.001   0.006   2000 -       -           -     24000
cifar10_full/triangular2_1 - triangular2 0.001   0.005   2000 -       -           0     16000
cifar10_full/triangular2_2 - triangular2 0.0001  0.0005  1000 -       -           16000 22000
cifar10_full/triangular2_3 - triangular2 0.00001 0.00005 500  -       -           22000 25000
cifar10_full/decay         - decay       0.001   0.007   4000 -       -           -     25000
cifar10_full/exp           - exp         0.001   -       -    0.99994 -           -     70000
cifar10_full/exp_range     - exp_range   0.001   0.006   2000 0.99994 -           -     42000
cifar10_full/range_test    - triangular  0       0.02    4000 -       -           -     4000

cifar10_full_adaptive/nesterov_fixed           Nesterov fixed      0.001  -      -    - - - 70000
cifar10_full_adaptive/nesterov_triangular      Nesterov triangular 0.001  0.006  2000 - - - 25000
cifar10_full_adaptive/adam_fixed               Adam     fixed      0.0005 -      -    - - - 70000
cifar10_full_adaptive/adam_triangular          Adam     triangular 0.0005 0.002  2000 - - - 25000
cifar10_full_adaptive/adam_triangular_70000    Adam     triangular 0.0005 0.002  2000 - - - 70000
cifar10_full_adaptive/rmsprop_fixed            RMSProp  fixed      0.0001 -      -    - - - 70000
cifar10_full_adaptive/rmsprop_triangular       RMSProp  triangular 0.0001 0.0003 2000 - - - 25000
cifar10_full_adaptive/rmsprop_triangular_70000 RMSProp  triangular 0.0001 0.0003 2000 - - - 70000
cifar10_full_adaptive/adagrad_fixed            AdaGrad  fixed      0.003  -      -    - - - 70000
cifar10_full_adaptive/adagrad_triangular       AdaGrad  triangular 0.003  0.035  2000 - - - 25000
cifar10_full_adaptive/adadelta_fixed           AdaDelta fixed      0.01   -      -    - - - 70000
cifar10_full_adaptive/adadelta_triangular      AdaDelta triangular 0.01   0.1    2000 - - - 25000

cifar10_sigmoid_bn/fixed      - fixed      0.001 -     -    - - - 60000
cifar10_sigmoid_bn/triangular - triangular 0.001 0.006 2000 - - - 60000

alexnet/fixed         - step        0.01  -     100000 0.1      - - 400000
alexnet/triangular2   - triangular2 0.01  0.015 30000  -        - - 400000
alexnet/exp           - exp         0.01  -     -      0.999995 - - 460000
alexnet/exp_range     - exp_range   0.006 0.014 30000  0.999995 - - 300000
alexnet/range_test    - triangular  0     0.03  30000  -        - - 30000
googlenet/fixed       - fixed       0.01  -     -      -        - - 420000
googlenet/triangular2 - triangular2 0.01  0.026 30000  -        - - 420000
googlenet/exp         - exp         0.01  -     -      0.99998  - - 240000
googlenet/exp_range   - exp_range   0.01  0.026 30000  0.99998  - - 240000
googlenet/range_test  - triangular  0.001 0.065 40036  -        - - 40036

resnet/fixed_0.1           Nesterov multistep  0.1   -     -     0.1 32000,48000   -      64000
resnet/fixed_0.2           Nesterov multistep  0.2   -     -     0.1 32000,48000   -      64000
resnet/fixed_0.3           Nesterov multistep  0.3   -     -     0.1 32000,48000   -      64000
resnet/clr_1               Nesterov triangular 0.1   0.3   3200  -   -             0      32000
resnet/clr_2               Nesterov triangular 0.01  0.03  3200  -   -             32000  48000
resnet/clr_3               Nesterov triangular 0.001 0.003 3200  -   -             48000  64000
stochastic_depth/fixed_0.1 Nesterov multistep  0.1   -     -     0.1 97750,146625  -      195500
stochastic_depth/fixed_0.2 Nesterov multistep  0.2   -     -     0.1 97750,146625  -      195500
stochastic_depth/fixed_0.3 Nesterov multistep  0.3   -     -     0.1 97750,146625  -      195500
stochastic_depth/clr_1     Nesterov triangular 0.1   0.3   9775  -   -             0      97750
stochastic_depth/clr_2     Nesterov triangular 0.01  0.03  9775  -   -             97750  146625
stochastic_depth/clr_3     Nesterov triangular 0.001 0.003 9775  -   -             146625 195500
densenet/fixed_0.1         Nesterov multistep  0.1   -     -     0.1 117300,175950 -      234600
densenet/fixed_0.2         Nesterov multistep  0.2   -     -     0.1 117300,175950 -      234600
densenet/fixed_0.3         Nesterov multistep  0.3   -     -     0.1 117300,175950 -      234600
densenet/clr_1             Nesterov triangular 0.1   0.2   11730 -   -             0      117300
densenet/clr_2             Nesterov triangular 0.01  0.02  11730 -   -             117300 175950
densenet/clr_3             Nesterov triangular 0.001 0.002 11730 -   -             175950 234600
"""
# What else the paper can be read to say, and what its tables leave open.
READINGS = """
cifar10_full/triangular_1        - triangular 0.001   0.006        2000 - - 0     16000
cifar10_full/triangular_table2_1 - triangular 0.001   0.005        2000 - - 0     16000
cifar10_full/suggested_1         - triangular2 0.0008 0.0068      2000 - - 0     16000
cifar10_full/divided_1           - triangular 0.001   0.005        2000 - - 0     4000
cifar10_full/divided_2           - triangular 0.001   0.003        2000 - - 4000  8000
cifar10_full/divided_3           - triangular 0.001   0.0023333333 2000 - - 8000  12000
cifar10_full/divided_4           - triangular 0.001   0.002        2000 - - 12000 16000
cifar10_full/decay_drops_1       - decay      0.001   0.007        4000 - - -     16000
cifar10_full/decay_drops_2       - fixed      0.0001  -            -    - - -     22000
cifar10_full/decay_drops_3       - fixed      0.00001 -            -    - - -     25000

cifar10_full_adaptive/nesterov_triangular_1 Nesterov triangular 0.001   0.006   2000 - - 0     16000
cifar10_full_adaptive/nesterov_triangular_2 Nesterov triangular 0.0001  0.0006  1000 - - 16000 22000
cifar10_full_adaptive/nesterov_triangular_3 Nesterov triangular 0.00001 0.00006 500  - - 22000 25000
cifar10_full_adaptive/adam_triangular_1     Adam     triangular 0.0005  0.002   2000 - - 0     16000
cifar10_full_adaptive/adam_triangular_2     Adam     triangular 0.00005 0.0002  1000 - - 16000 22000
cifar10_full_adaptive/adam_triangular_3     Adam     triangular 5e-6    0.00002 500  - - 22000 25000
cifar10_full_adaptive/rmsprop_triangular_1  RMSProp  triangular 0.0001  0.0003  2000 - - 0     16000
cifar10_full_adaptive/rmsprop_triangular_2  RMSProp  triangular 0.00001 0.00003 1000 - - 16000 22000
cifar10_full_adaptive/rmsprop_triangular_3  RMSProp  triangular 1e-6    3e-6    500  - - 22000 25000
cifar10_full_adaptive/adagrad_triangular_1  AdaGrad  triangular 0.003   0.035   2000 - - 0     16000
cifar10_full_adaptive/adagrad_triangular_2  AdaGrad  triangular 0.0003  0.0035  1000 - - 16000 22000
cifar10_full_adaptive/adagrad_triangular_3  AdaGrad  triangular 0.00003 0.00035 500  - - 22000 25000
cifar10_full_adaptive/adadelta_triangular_1 AdaDelta triangular 0.01    0.1     2000 - - 0     16000
cifar10_full_adaptive/adadelta_triangular_2 AdaDelta triangular 0.001   0.01    1000 - - 16000 22000
cifar10_full_adaptive/adadelta_triangular_3 AdaDelta triangular 0.0001  0.001   500  - - 22000 25000

cifar10_full_adaptive/nesterov_drops Nesterov multistep 0.001  - - 0.1 60000,65000 - 70000
cifar10_full_adaptive/adam_drops     Adam     multistep 0.0005 - - 0.1 60000,65000 - 70000
cifar10_full_adaptive/rmsprop_drops  RMSProp  multistep 0.0001 - - 0.1 60000,65000 - 70000
cifar10_full_adaptive/adagrad_drops  AdaGrad  multistep 0.003  - - 0.1 60000,65000 - 70000
cifar10_full_adaptive/adadelta_drops AdaDelta multistep 0.01   - - 0.1 60000,65000 - 70000

resnet/tenth_fixed_0.1 Nesterov multistep  0.1   -     -   0.1 3200,4800 -    6400
resnet/tenth_fixed_0.2 Nesterov multistep  0.2   -     -   0.1 3200,4800 -    6400
resnet/tenth_fixed_0.3 Nesterov multistep  0.3   -     -   0.1 3200,4800 -    6400
resnet/tenth_clr_1     Nesterov triangular 0.1   0.3   320 -   -         0    3200
resnet/tenth_clr_2     Nesterov triangular 0.01  0.03  320 -   -         3200 4800
resnet/tenth_clr_3     Nesterov triangular 0.001 0.003 320 -   -         4800 6400
"""
# From arXiv 1708.07120 and 1803.09820: the solver files and logs that their author published; on
# digits and cifar10_full, the same policy with a cycle of nine tenths of the run.
LATER_FIELDS = {
    **{field: form for field, form in FIELDS.items() if field != "start_lr_policy"},
    **{"momentum": "{}", "cyclical_momentum": "[{}]"},
}
LATER = """
super_convergence/triangular -        triangular 0.1    3     5000  - - 10000 0.9 -
super_convergence/fixed      -        multistep  0.35   -     -     0.1 50000,70000 80000 0.9 -
one_cycle/wide32             Nesterov 1cycle     0.1    1     2246  - - 4882 0.95 0.85,2246
one_cycle/cifar100           Nesterov 1cycle     0.002  0.02  2246  - - 4882 0.95 0.8,2246
one_cycle/resnet56           Nesterov 1cycle     0.1    1.2   3417  - - 7080 0.95 0.85,3417
cifar10_full/fixed_25000     -        multistep  0.001  -     -     0.1 21430,23215 25000 0.9 -
cifar10_full/1cycle          -        1cycle     0.0006 0.006 11250 - - 25000 0.9 -
cifar10_full/1cycle_momentum -        1cycle     0.0006 0.006 11250 - - 25000 0.95 0.85,11250
digits/1cycle                -        1cycle     0.01   0.1   540   - - 1200 0.9 -
digits/1cycle_momentum       -        1cycle     0.01   0.1   540   - - 1200 0.95 0.85,540
"""
ROWS = {
    row.split()[0]: (fields, row.split()[1:])
    for fields, table in ((FIELDS, PAPER + READINGS), (LATER_FIELDS, LATER))
    for row in table.splitlines()
    if row
}

# Of the nets that are not generated: the images of an update, of a test batch and of a test.
BATCHES = {
    "cifar10_full": (100, 100, 10_000),
    "cifar10_full_adaptive": (100, 100, 10_000),
    "cifar10_sigmoid_bn": (100, 1000, 10_000),
    "alexnet": (256, 50, 50_000),
    "googlenet": (128, 50, 50_000),
}


@pytest.fixture
def files(tree: Tree, root: Path) -> list[Path]:
    """Every solver file that ships."""
    return sorted(root.glob("models/*/*solver*.prototxt"))


def read(root: Path, name: str) -> Any:
    return prototxt.read_solver(root / "models" / f"{name}_solver.prototxt")


def test_every_solver_file_is_in_the_table(files: list[Path], root: Path) -> None:
    names = [str(file.relative_to(root / "models")) for file in files]
    demos = {f"digits/{name}_solver.prototxt" for name in ("fixed", "triangular2", "suggested")}
    assert set(names) == demos | {f"{name}_solver.prototxt" for name in ROWS}


@pytest.mark.parametrize("name", ROWS)
def test_a_solver_has_the_papers_settings(name: str, tree: Tree, root: Path) -> None:
    solver = read(root, name)
    fields, row = ROWS[name]
    cells = zip(fields.items(), row, strict=True)
    lines = [f"{field}: {form.format(cell)}" for (field, form), cell in cells if cell != "-"]
    papers = text_format.Parse("\n".join(lines), prototxt.caffe_pb2().SolverParameter())
    for field in {*FIELDS, *fields}:
        assert getattr(solver, field) == getattr(papers, field), field


@pytest.mark.parametrize("folder", BATCHES)
def test_batches_are_the_papers_and_tests_are_of_every_image(
    folder: str, tree: Tree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_update, of_test, tested = BATCHES[folder]
    monkeypatch.chdir(root if folder.startswith("cifar10") else tree.source)
    for name in (name for name in ROWS if name.startswith(f"{folder}/")):
        solver = read(root, name)
        file = prototxt.SolverFile(solver, name)
        sizes = [net.parameter.layer[0].data_param.batch_size for net in file.nets]
        assert [sizes[0] * solver.iter_size, *sizes[1:]] == [of_update, of_test], name
        assert solver.test_iter[0] * of_test == tested, name


def test_every_solver_has_the_rates_of_its_policy(files: list[Path]) -> None:
    for file in files:
        solver = prototxt.read_solver(file)
        base, top, gamma = (float(rate) for rate in (solver.base_lr, solver.max_lr, solver.gamma))
        way = solver.stepsize or solver.max_iter // 2
        iterations = [solver.start_lr_policy + way * half for half in range(3)]
        steps = [sum(value <= at for value in solver.stepvalue) for at in iterations]
        expected: list[float] = {
            "fixed": [base, base, base],
            "multistep": [base * gamma**step for step in steps],
            "step": [base, base * gamma, base * gamma**2],
            "exp": [base, base * gamma**way, base * gamma ** (2 * way)],
            "triangular": [base, top, base],
            "triangular2": [base, top, base],
            "exp_range": [base, top * gamma**way, base * gamma ** (2 * way)],
            "decay": [top, base, base],
            "1cycle": [base, top, base / 1000],
        }[solver.lr_policy]
        rates = policies.learning_rate(solver, iterations)
        assert rates.tolist() == np.array(expected, np.float32).tolist(), file


def test_parity_and_schedule_take_every_solver(files: list[Path]) -> None:
    results = list(parity.check_all(files, 100 * len(files)))
    cycling = [file for file in files if prototxt.read_solver(file).cyclical_momentum]
    assert len(cycling) >= 5
    assert sorted(result.name for result in results) == sorted(map(str, [*files, *cycling]))
    assert [result.name for result in results if result.differing] == []
    for file in files:
        last = prototxt.read_solver(file).max_iter - 1
        assert schedule.schedule([file])[-1]["iteration"] == last, file


def test_stages_begin_where_the_ones_before_end(tree: Tree, root: Path) -> None:
    firsts = [name for name in ROWS if name.endswith("_1")]
    assert "cifar10_full/triangular2_1" in firsts
    for first in firsts:
        names = [f"{first[:-1]}{number}" for number in range(1, 5)]
        stages = [read(root, name) for name in names if name in ROWS]
        ends = [stage.max_iter for stage in stages]
        for stage, begin in zip(stages, [0, *ends], strict=False):
            assert stage.start_lr_policy == (begin if stage.max_lr else 0), first


@pytest.mark.parametrize(
    ("folder", "example"),
    [
        ("cifar10_full", "cifar10_full_train_test"),
        ("cifar10_sigmoid_bn", "cifar10_full_sigmoid_train_test_bn"),
    ],
)
def test_a_net_has_the_layers_and_the_bits_of_caffes_own(
    folder: str, example: str, tree: Tree, root: Path
) -> None:
    ours = prototxt.read_net(root / "models" / folder / "train_test.prototxt")
    caffes = prototxt.read_net(tree.source / "examples" / "cifar10" / f"{example}.prototxt")
    assert layers(ours) == layers(caffes)

    mine, other = after_training(ours), after_training(caffes)
    assert mine.keys() == other.keys()
    for name, values in mine.items():
        assert np.array_equal(values, other[name]), name


def layers(net: Any) -> list[Any]:
    """What each layer is called and does to which blobs; the name of the data is left out."""
    return sorted(
        (
            *("" if layer.type == "Data" else layer.name, layer.type),
            *(list(layer.bottom), list(layer.top), [rule.phase for rule in layer.include]),
            layer.data_param.batch_size,
        )
        for layer in net.layer
    )


def after_training(net: Any) -> dict[str, Any]:
    """The blobs and the parameters of a net, and of its test net, after three iterations."""
    parameter = prototxt.caffe_pb2().SolverParameter(
        **{"net_param": on_random_data(net, 4), "random_seed": 1, "test_iter": [1]},
        **{"lr_policy": "fixed", "base_lr": 0.001, "momentum": 0.9, "weight_decay": 0.004},
        **{"test_interval": 1000, "test_initialization": False},
    )
    live = solvers.load_solver(parameter)
    live.step(3)
    list(solvers.test(live, [1]))
    numbers = {}
    for phase, net in (("train", live.net), ("test", live.test_nets[0])):
        for name, blob in net.blobs.items():
            numbers[f"{phase}: {name}"] = np.array(blob.data)
        for name, parameters in net.params.items():
            for index, blob in enumerate(parameters):
                numbers[f"{phase}: {name}, parameter {index}"] = np.array(blob.data)
    return numbers


@pytest.mark.parametrize("folder", ["alexnet", "googlenet"])
def test_imagenets_nets_train(folder: str, tree: Tree, root: Path) -> None:
    solver = read(root, f"{folder}/triangular2")
    net = prototxt.read_net(tree.source / solver.net)
    solver.ClearField("net")
    solver.net_param.CopyFrom(on_random_data(net, 1))
    solver.test_iter[:] = [1]
    solver.snapshot = 0
    live = solvers.load_solver(solver)
    live.step(1)
    assert live.iter == 1
    assert np.isfinite(solvers.loss(live.net))


def on_random_data(net: Any, batch_size: int) -> Any:
    """A net with random images, of the size that it crops or of CIFAR-10's, as its data."""
    changed = type(net)()
    changed.CopyFrom(net)
    for layer in changed.layer:
        if layer.type != "Data":
            continue
        size = layer.transform_param.crop_size or 32
        layer.name, layer.type = "data", "DummyData"
        layer.ClearField("transform_param")
        layer.ClearField("data_param")
        layer.dummy_data_param.shape.add(dim=[batch_size, 3, size, size])
        layer.dummy_data_param.shape.add(dim=[batch_size])
        layer.dummy_data_param.data_filler.add(type="gaussian", std=50)
        layer.dummy_data_param.data_filler.add(type="uniform", min=0, max=9)
    return changed
