"""Solver and net prototxt files, read as Caffe reads them, without importing caffe."""

from caffe_clr.prototxt.files import NO_PATCH as NO_PATCH
from caffe_clr.prototxt.files import SOLVER_TYPES as SOLVER_TYPES
from caffe_clr.prototxt.files import WITH_MOMENTUM as WITH_MOMENTUM
from caffe_clr.prototxt.files import Net as Net
from caffe_clr.prototxt.files import SolverFile as SolverFile
from caffe_clr.prototxt.files import caffe_pb2 as caffe_pb2
from caffe_clr.prototxt.files import check_file as check_file
from caffe_clr.prototxt.files import did_you_mean as did_you_mean
from caffe_clr.prototxt.files import has_policy as has_policy
from caffe_clr.prototxt.files import looked_for as looked_for
from caffe_clr.prototxt.files import open_solver as open_solver
from caffe_clr.prototxt.files import read_net as read_net
from caffe_clr.prototxt.files import read_solver as read_solver
from caffe_clr.prototxt.files import solver_parameter as solver_parameter
from caffe_clr.prototxt.files import solver_type as solver_type
from caffe_clr.prototxt.files import upgraded as upgraded
