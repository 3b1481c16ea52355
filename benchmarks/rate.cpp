// Times SGDSolver::GetLearningRate.
//
// rate ROUNDS CALLS SOLVER...
//
// For each solver prints a line with the nanoseconds of a call, one number a
// round. The iterations ascend from 0 through all rounds, as in a run.

#include <chrono>
#include <cstdlib>
#include <iostream>

#include "caffe/sgd_solvers.hpp"

class TimedSolver : public caffe::SGDSolver<float> {
 public:
  using caffe::SGDSolver<float>::SGDSolver;

  // Not inlined, since callgrind writes its counts when a call of it ends.
  __attribute__((noinline)) double Nanoseconds(const int calls) {
    const auto start = std::chrono::steady_clock::now();
    for (const int end = iter_ + calls; iter_ < end; ++iter_) {
      rate_ = GetLearningRate();
    }
    const std::chrono::duration<double, std::nano> taken =
        std::chrono::steady_clock::now() - start;
    return taken.count() / calls;
  }

 private:
  volatile float rate_;
};

int main(int argc, char** argv) {
  const int rounds = std::atoi(argv[1]);
  const int calls = std::atoi(argv[2]);
  for (int i = 3; i < argc; ++i) {
    TimedSolver solver((std::string(argv[i])));
    for (int round = 0; round < rounds; ++round) {
      std::cout << solver.Nanoseconds(calls) << " ";
    }
    std::cout << std::endl;
  }
}
