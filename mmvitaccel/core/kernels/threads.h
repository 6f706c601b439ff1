// Threads of an OpenMP runtime, of the very one that torch has loaded: threads of our own would have
// to share the processors with torch's, which spin for a while after each operator.
//
// The runtime is given as addresses (library/openmp.py) instead of being linked: torch brings one
// under a name of its own, and OpenMP's pragmas would name that of whoever compiled the kernels.

#pragma once

namespace threads {

// Of GOMP_parallel and GOMP_barrier.
struct Runtime {
  void (*parallel)(void (*run)(void *), void *data, unsigned num_threads, unsigned flags);
  void (*barrier)();
};
__attribute__((visibility("hidden"))) extern Runtime runtime;

// Calls run(), which several threads may be in, by each thread of a team.
template <class Run> void in_team(int num_threads, Run &run) {
  runtime.parallel([](void *data) { (*static_cast<Run *>(data))(); }, &run, unsigned(num_threads),
                   0);
}

// Waits for the rest of the team.
inline void meet() { runtime.barrier(); }

} // namespace threads
