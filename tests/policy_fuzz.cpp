// Gives the code of rate and momentum in the patched sgd_solver.cpp random
// SolverParameters, under the sanitizers that it is compiled with. SGD_SOLVER is that file.
//   policy_fuzz NUMBER [print]    prints each value as well

#include <algorithm>
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
#undef CHECK_EQ
#undef CHECK_GE
#undef CHECK_GT
#undef CHECK_LE
#define CHECK(condition) if (condition) {} else Refusal()  // NOLINT
#define CHECK_EQ(a, b) CHECK((a) == (b))
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

static bool printing = false;

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
static bool RateShouldBeRefused(const SolverParameter& param) {
  return !param.has_max_lr() || !std::isfinite(param.base_lr()) ||
      !std::isfinite(param.max_lr()) || param.base_lr() < 0 ||
      param.max_lr() < param.base_lr() ||
      param.stepsize() <= 0 || param.start_lr_policy() < 0 ||
      (param.lr_policy() == "exp_range" &&
       !(param.gamma() > 0 && param.gamma() <= 1));
}

static bool IsMomentum(float value) { return value >= 0 && value < 1; }

static bool MomentumShouldBeRefused(const SolverParameter& param) {
  return param.cyclical_momentum_size() != 2 || !IsMomentum(param.momentum()) ||
      !IsMomentum(param.cyclical_momentum(0)) ||
      !std::isfinite(param.cyclical_momentum(1)) ||
      param.cyclical_momentum(1) < 1 || param.start_lr_policy() < 0;
}

static void Fail(const SolverParameter& param, int iter, const char* what) {
  std::printf("%s at iteration %d of\n%s", what, iter,
      param.DebugString().c_str());
  std::exit(1);
}

static bool IsRefused(void (*check)(const SolverParameter&), bool should_be,
    const SolverParameter& param) {
  bool refused = false;
  try {
    check(param);
  } catch (const Refused&) {
    refused = true;
  }
  if (refused != should_be) {
    Fail(param, 0, refused ? "wrongly refused" : "wrongly accepted");
  }
  return refused;
}

static void CheckWithin(const SolverParameter& param, int iter, double value,
    float lowest, float highest) {
  if (printing) { std::printf("%a\n", value); }
  const float rounded = value;
  if (!std::isfinite(value) || !std::isfinite(rounded)) {
    Fail(param, iter, "not finite");
  }
  if (rounded < lowest || rounded > highest) {
    Fail(param, iter, "out of bounds");
  }
}

static bool TryRate(SolverParameter param) {
  const char* kPolicies[] = {
      "triangular", "triangular2", "exp_range", "decay", "1cycle" };
  param.set_lr_policy(kPolicies[OneOf(5)]);
  if (OneOf(20)) { param.set_max_lr(RandomFloat()); }
  if (OneOf(20)) { param.set_base_lr(RandomFloat()); }
  if (OneOf(20)) { param.set_stepsize(RandomInt()); }
  if (OneOf(4)) { param.set_gamma(RandomFloat()); }
  if (param.max_lr() < param.base_lr() && OneOf(4)) {
    const float base_lr = param.base_lr();
    param.set_base_lr(param.max_lr());
    param.set_max_lr(base_lr);
  }
  if (IsRefused(caffe::CheckBounds, RateShouldBeRefused(param), param)) {
    return false;
  }
  if (!caffe::IsCyclical(param.lr_policy())) { Fail(param, 0, "not known"); }
  float lowest = param.base_lr();
  if (param.lr_policy() == "exp_range") { lowest = 0; }
  if (param.lr_policy() == "1cycle") { lowest = param.base_lr() / 1000.; }
  for (int i = 0; i < 4; ++i) {
    const int iter = RandomInt();
    CheckWithin(param, iter, caffe::CyclicalLearningRate(param, iter),
        lowest, param.max_lr());
  }
  return true;
}

static bool TryMomentum(SolverParameter param) {
  param.set_momentum(RandomFloat());
  if (OneOf(20)) { param.add_cyclical_momentum(RandomFloat()); }
  if (OneOf(20)) {
    param.add_cyclical_momentum(OneOf(4) ? RandomInt() : RandomFloat());
  }
  if (OneOf(20) == 0) { param.add_cyclical_momentum(RandomFloat()); }
  if (IsRefused(caffe::CheckMomentum, MomentumShouldBeRefused(param), param)) {
    return false;
  }
  const float momentum = param.momentum(), first = param.cyclical_momentum(0);
  for (int i = 0; i < 4; ++i) {
    const int iter = RandomInt();
    CheckWithin(param, iter, caffe::CyclicalMomentum(param, iter),
        std::min(momentum, first), std::max(momentum, first));
  }
  return true;
}

int main(int argc, char** argv) {
  const int rounds = std::atoi(argv[1]);
  printing = argc > 2;
  int rates = 0, momenta = 0;
  for (int i = 0; i < rounds; ++i) {
    SolverParameter param;
    if (OneOf(2)) { param.set_start_lr_policy(RandomInt()); }
    rates += TryRate(param);
    momenta += TryMomentum(param);
  }
  std::printf("of %d, %d accepted for their rate, %d for their momentum\n",
      rounds, rates, momenta);
}
