// Gives the policy code of the patched sgd_solver.cpp random SolverParameters,
// under the sanitizers that it is compiled with. SGD_SOLVER is that file.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "caffe/sgd_solvers.hpp"
#include "caffe/util/hdf5.hpp"
#include "caffe/util/io.hpp"
#include "caffe/util/upgrade_proto.hpp"

// A failed check of the policy code throws instead of ending the process.
struct Refused {};

class Refusal {
 public:
  ~Refusal() noexcept(false) { throw Refused(); }
  template <typename T>
  Refusal& operator<<(const T&) { return *this; }
};

#undef CHECK
#undef CHECK_GE
#undef CHECK_GT
#undef CHECK_LE
#define CHECK(condition) if (condition) {} else Refusal()  // NOLINT
#define CHECK_GE(a, b) CHECK((a) >= (b))
#define CHECK_GT(a, b) CHECK((a) > (b))
#define CHECK_LE(a, b) CHECK((a) <= (b))

// The solver itself stays the library's.
#undef INSTANTIATE_CLASS
#undef REGISTER_SOLVER_CLASS
#define INSTANTIATE_CLASS(name)
#define REGISTER_SOLVER_CLASS(name)

#include SGD_SOLVER

using caffe::SolverParameter;

typedef std::numeric_limits<float> Float;
typedef std::numeric_limits<int> Int;

static std::mt19937_64 generator(1506);

static int OneOf(int n) { return generator() % n; }

static float RandomFloat() {
  static const float kSpecial[] = { 0, -0.f, 1, -1, 0.001, 0.006, Float::max(),
      -Float::max(), Float::min(), Float::denorm_min(), Float::infinity(),
      -Float::infinity(), Float::quiet_NaN() };
  if (OneOf(4) == 0) { return kSpecial[OneOf(13)]; }
  const float fraction = std::generate_canonical<double, 53>(generator);
  return std::ldexp(fraction, OneOf(8) == 0 ? OneOf(250) - 125 : -OneOf(10));
}

static int RandomInt() {
  static const int kSpecial[] = { 0, 1, -1, 2, 1 << 24, (1 << 24) + 1, 1 << 30,
      (1 << 30) + 1, Int::max(), Int::max() - 1, Int::min() };
  if (OneOf(3) == 0) { return kSpecial[OneOf(11)]; }
  const int any = static_cast<int>(generator() >> OneOf(32) >> 32);
  return OneOf(8) ? std::abs(any % Int::max()) : any;
}

// The rules as they are documented, not as the code has them.
static bool ShouldBeRefused(const SolverParameter& param) {
  return !param.has_max_lr() || !std::isfinite(param.base_lr()) ||
      !std::isfinite(param.max_lr()) || param.base_lr() < 0 ||
      param.max_lr() < param.base_lr() ||
      param.stepsize() <= 0 || param.start_lr_policy() < 0 ||
      (param.lr_policy() == "exp_range" &&
       !(param.gamma() > 0 && param.gamma() <= 1));
}

static void Fail(const SolverParameter& param, int iter, const char* what) {
  std::printf("%s at iteration %d of\n%s", what, iter,
      param.DebugString().c_str());
  std::exit(1);
}

int main(int argc, char** argv) {
  const int rounds = std::atoi(argv[1]);
  const char* kPolicies[] = { "triangular", "triangular2", "exp_range", "decay" };
  int refusals = 0;
  for (int i = 0; i < rounds; ++i) {
    SolverParameter param;
    param.set_lr_policy(kPolicies[OneOf(4)]);
    if (OneOf(20)) { param.set_max_lr(RandomFloat()); }
    if (OneOf(20)) { param.set_base_lr(RandomFloat()); }
    if (OneOf(20)) { param.set_stepsize(RandomInt()); }
    if (OneOf(2)) { param.set_start_lr_policy(RandomInt()); }
    if (OneOf(4)) { param.set_gamma(RandomFloat()); }
    if (param.max_lr() < param.base_lr() && OneOf(4)) {
      const float base_lr = param.base_lr();
      param.set_base_lr(param.max_lr());
      param.set_max_lr(base_lr);
    }
    bool refused = false;
    try {
      caffe::CheckBounds(param);
    } catch (const Refused&) {
      refused = true;
    }
    if (refused != ShouldBeRefused(param)) {
      Fail(param, 0, refused ? "wrongly refused" : "wrongly accepted");
    }
    refusals += refused;
    if (refused) { continue; }
    if (!caffe::HasBounds(param.lr_policy())) { Fail(param, 0, "not known"); }
    const float lowest = param.lr_policy() == "exp_range" ? 0 : param.base_lr();
    for (int j = 0; j < 4; ++j) {
      const int iter = RandomInt();
      const double rate = caffe::LearningRateWithinBounds(param, iter);
      const float rounded = rate;
      if (!std::isfinite(rate) || !std::isfinite(rounded)) {
        Fail(param, iter, "not finite");
      }
      if (rounded < lowest || rounded > param.max_lr()) {
        Fail(param, iter, "out of bounds");
      }
    }
  }
  std::printf("%d accepted, %d refused\n", rounds - refusals, refusals);
}
