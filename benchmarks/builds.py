"""The two Caffes that are measured, built first where they are not."""

from caffe_clr import locations
from caffe_clr.harness import pipeline
from caffe_clr.harness.compilation import Tree
from caffe_clr.harness.report import Report

# what is neither Caffe's own nor needed to compile it
_OURS = (
    *("cyclical-learning-rates", "pooling-nan", "parallel-for", "parallel-convolution"),
    *("parallel-layers", "im2col", "pooling", "onednn", "batch-norm"),
)


def this_build(report: Report) -> Tree:
    """Caffe with the whole series."""
    return pipeline.build(pipeline.Options(prefix=locations.build() / "caffe"), report)


def stock(report: Report) -> Tree:
    """Caffe with the toolchain patches alone, built the same way."""
    work = locations.build() / "stock"
    options = pipeline.Options(
        prefix=work / "caffe",
        work=work,
        without=_OURS,
        onednn=False,
        import_here=False,
    )
    return pipeline.build(options, report)
