"""Places a patch on Caffes that `git apply` does not fit: forks, and older and newer releases.

Line numbers do not count. If all the context of a change is there, the change goes
there. Otherwise its kind decides:

    field            the end of SolverParameter, with a free number
    policy           before the last `else` of GetLearningRate
    check            the head of its function
    function         before the function that calls it
    declaration      after its neighbour
    replaced line    in place of the line that does the same in its function
    other lines      beside the lines that are beside them in the patch

Comments, documentation, tests and log output are left out if they have no place.
Nothing is written here.
"""

from caffe_clr.harness.placing.fields import with_true_next_id as with_true_next_id
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
