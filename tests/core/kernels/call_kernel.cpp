// Calls one function of a kernel library with data from another process: `call_kernel LIBRARY`, in an
// emulator of the library's machine.
//
// In: name, whole numbers, buffers, and which of their words point where; the first buffer, if any,
// is the first argument. Out: the result, and the buffers. All lengths and words have 64 bits.

#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

// A team of threads in place of OpenMP's.
std::mutex mutex;
std::condition_variable changed;
unsigned team, waiting, round_of_waiting;

void barrier() {
  std::unique_lock<std::mutex> lock(mutex);
  const unsigned round = round_of_waiting;
  if (++waiting == team) {
    waiting = 0;
    ++round_of_waiting;
    changed.notify_all();
  } else {
    changed.wait(lock, [&] { return round != round_of_waiting; });
  }
}

void parallel(void (*run)(void *), void *data, unsigned num_threads, unsigned) {
  team = num_threads;
  std::vector<std::thread> others;
  for (unsigned i = 1; i < num_threads; ++i)
    others.emplace_back(run, data);
  run(data);
  for (std::thread &other : others)
    other.join();
}

[[noreturn]] void stop(const char *why) {
  std::fprintf(stderr, "call_kernel: %s\n", why);
  std::exit(1);
}

void read(void *to, size_t size) {
  if (size && std::fread(to, size, 1, stdin) != 1)
    stop("the input ends too early");
}

int64_t read_number() {
  int64_t number;
  read(&number, sizeof number);
  return number;
}

} // namespace

int main(int, char **argv) {
  void *library = dlopen(argv[1], RTLD_NOW);
  if (!library)
    stop(dlerror());
  std::string name(size_t(read_number()), ' ');
  read(&name[0], name.size());
  int64_t numbers[2] = {};
  for (int64_t i = 0, count = read_number(); i < count; ++i)
    numbers[i] = read_number();
  std::vector<std::vector<char>> buffers(static_cast<size_t>(read_number()));
  for (auto &buffer : buffers) {
    buffer.resize(size_t(read_number()));
    read(buffer.data(), buffer.size());
  }
  for (int64_t i = 0, count = read_number(); i < count; ++i) {
    int64_t place[4]; // buffer and offset of the word, buffer and offset that it points to
    read(place, sizeof place);
    char *to = buffers[size_t(place[2])].data() + place[3];
    std::memcpy(buffers[size_t(place[0])].data() + place[1], &to, sizeof to);
  }
  using Barrier = decltype(&barrier);
  using Parallel = decltype(&parallel);
  reinterpret_cast<void (*)(Parallel, Barrier)>(dlsym(library, "use_threads"))(parallel, barrier);
  void *function = dlsym(library, name.c_str());
  if (!function)
    stop(dlerror());
  int64_t result;
  if (buffers.empty())
    result = reinterpret_cast<int64_t (*)()>(function)();
  else // of what a function does not take, registers hold more than it looks at
    result = reinterpret_cast<int64_t (*)(void *, int64_t, int64_t)>(function)(
        buffers[0].data(), numbers[0], numbers[1]);
  std::fwrite(&result, sizeof result, 1, stdout);
  for (const auto &buffer : buffers)
    std::fwrite(buffer.data(), 1, buffer.size(), stdout);
}
