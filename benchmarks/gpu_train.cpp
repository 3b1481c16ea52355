// Trains on the first GPU, on one random batch, for gpu_check.
//
// gpu_train SOLVER
//
// A line "step N" on standard input is answered with the milliseconds of an
// iteration, as the mean of N of them.

#include <chrono>
#include <iostream>
#include <string>

#include "caffe/caffe.hpp"
#include "caffe/util/upgrade_proto.hpp"

using caffe::Blob;
using caffe::Caffe;

int main(int argc, char** argv) {
  google::InitGoogleLogging(argv[0]);
  caffe::SolverParameter param;
  caffe::ReadSolverParamsFromTextFileOrDie(argv[1], &param);
  if (param.solver_mode() == caffe::SolverParameter_SolverMode_GPU) {
    Caffe::SetDevice(0);
    Caffe::set_mode(Caffe::GPU);
  }
  const boost::shared_ptr<caffe::Solver<float> > solver(
      caffe::SolverRegistry<float>::CreateSolver(param));
  Blob<float>* data = solver->net()->blob_by_name("data").get();
  Blob<float>* label = solver->net()->blob_by_name("label").get();
  caffe::caffe_rng_gaussian<float>(data->count(), 0, 1,
      data->mutable_cpu_data());
  for (int i = 0; i < label->count(); ++i) {
    label->mutable_cpu_data()[i] = i % 10;
  }
  std::string step;
  int iterations;
  while (std::cin >> step >> iterations) {
    const auto start = std::chrono::steady_clock::now();
    solver->Step(iterations);
    if (Caffe::mode() == Caffe::GPU) CUDA_CHECK(cudaDeviceSynchronize());
    const std::chrono::duration<double, std::milli> taken =
        std::chrono::steady_clock::now() - start;
    std::cout << taken.count() / iterations << std::endl;
  }
}
