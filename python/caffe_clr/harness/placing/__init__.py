"""Places a patch on Caffes that `git apply` does not fit: forks, and older and newer releases.

Each run of changed lines goes where it belongs, not where its line number says:
where all stands around it that the patch shows, there; else a field to the end
of SolverParameter, with a number that is free; a policy before the last `else`
of GetLearningRate; a check to the head of its function; functions before the
one that calls them; a declaration behind its neighbour; a line for the one that
does the same in the same function; and other lines beside those that they stand
beside in the patch. Comments, documentation, tests and what is logged are left
out where they have no place. Nothing is written here.
"""

from caffe_clr.harness.placing.files import is_placeable as is_placeable
from caffe_clr.harness.placing.files import place as place
from caffe_clr.harness.placing.finding import nets as nets
from caffe_clr.harness.placing.finding import sources as sources
from caffe_clr.harness.placing.parts import APPLIED as APPLIED
from caffe_clr.harness.placing.parts import FITS as FITS
from caffe_clr.harness.placing.parts import LOST as LOST
from caffe_clr.harness.placing.parts import NO_FILE as NO_FILE
from caffe_clr.harness.placing.parts import OWN as OWN
from caffe_clr.harness.placing.parts import PARTLY as PARTLY
from caffe_clr.harness.placing.parts import FilePlacement as FilePlacement
from caffe_clr.harness.placing.parts import Part as Part
from caffe_clr.harness.placing.parts import Placement as Placement
