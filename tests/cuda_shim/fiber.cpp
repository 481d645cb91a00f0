// Runs a kernel's blocks one after another, a fiber for each thread of the block, all on one thread of the host.
//
// A fiber runs until it must wait for others. Warp after warp goes as far as it can; when a barrier opens, the first
// warp is the next again, and within a warp the first lane. So in orders 0 (forward) and 1 (backward) two accesses
// between the same barriers happen both ways round: results that differ show a race.
//
// Fibers start by makecontext and switch by _setjmp and _longjmp. With swapcontext, a system call each time, it takes
// 8 times as long; with a thread of the host for each thread of the block 30 times.
#include "cuda_cpu.h"

#include <numeric>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <utility>

uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace {

using gpunet::Line, gpunet::Margin;

constexpr int MOST_THREADS = 1024, WARP = 32;
constexpr size_t STACK = 64 << 10;
constexpr unsigned char UNWRITTEN = 0xff;  // shared memory at first: not a number, and -1
// The margins around it: a signalling one. What is computed from it is quiet, so that a write shows in any case.
constexpr unsigned short ASTRAY = 0xffa5;

enum class State { ready, at_barrier, at_exchange, done };

struct Fiber {
  ucontext_t start;
  jmp_buf paused;
  bool started;
  uint3 index;  // its threadIdx
  State state;
  Line line;  // where it waits
};

struct Warp {
  int arrived, exchanges;
  // Two sets in turn: the first lane to go on may write for the next exchange before the last has read from this one.
  char slots[2][WARP][8];
};

const gpunet::Kernel* kernel;
void** arguments;
Fiber fibers[MOST_THREADS];
Warp warps[MOST_THREADS / WARP];
int threads, current, at_barrier;
bool opened;  // the block's barrier, just now
jmp_buf scheduler;
sigjmp_buf failed;
char message[256];
pthread_t runner;

// Errors

[[noreturn]] void fail(const char* what, Line line) {
  char where[32] = "";
  if (line.number) snprintf(where, sizeof where, " at line %d", line.number);
  uint3 b = blockIdx, t = threadIdx;
  snprintf(message, sizeof message, "%s%s, block (%u, %u, %u), thread (%u, %u, %u)", what, where, b.x, b.y, b.z, t.x,
           t.y, t.z);
  siglongjmp(failed, 1);
}

void on_signal(int number) {
  if (!pthread_equal(pthread_self(), runner))
    signal(number, SIG_DFL);  // another thread's own fault: let it happen
  else if (number == SIGSEGV || number == SIGBUS)
    fail("illegal address", {0});
  else  // what -fsanitize looks for
    fail("misaligned address, index out of range, or an impossible integer operation", {0});
}

// Handlers for faults, on a stack of their own: the fiber's may be what overflowed. Afterwards those of before.
struct Handlers {
  static constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};
  struct sigaction before[5];
  stack_t stack_before;

  void install() {
    static char memory[64 << 10];
    stack_t stack{memory, 0, sizeof memory};
    sigaltstack(&stack, &stack_before);
    struct sigaction action {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_ONSTACK;
    for (int i = 0; i < 5; i++) sigaction(SIGNALS[i], &action, &before[i]);
  }
  void restore() {
    for (int i = 0; i < 5; i++) sigaction(SIGNALS[i], &before[i], nullptr);
    sigaltstack(&stack_before, nullptr);
  }
};

// Fibers

void leave() {
  if (!_setjmp(fibers[current].paused)) _longjmp(scheduler, 1);
}

void live() {
  for (;;) {  // the next block's or launch's thread is the same fiber's
    kernel->call(arguments);
    fibers[current].state = State::done;
    leave();
  }
}

void resume(int i) {
  current = i;
  threadIdx = fibers[i].index;
  if (_setjmp(scheduler)) return;
  if (fibers[i].started) _longjmp(fibers[i].paused, 1);
  fibers[i].started = true;
  setcontext(&fibers[i].start);
}

// Stacks lie between unreadable pages, so that one which overflows is an illegal address.
char* stack_of(unsigned i) {
  static char* stacks;
  static const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), step = STACK + page;
  if (!stacks) {
    void* memory = mmap(nullptr, MOST_THREADS * step, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    stacks = static_cast<char*>(memory);
    for (int j = 0; j < MOST_THREADS; j++) mprotect(stacks + j * step, page, PROT_NONE);
  }
  return stacks + i * step + page;
}

void prepare(unsigned i) {
  Fiber& fiber = fibers[i];
  fiber.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
  if (fiber.started) return;
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = stack_of(i);
  fiber.start.uc_stack.ss_size = STACK;
  makecontext(&fiber.start, live, 0);
}

struct Order {
  int number;  // 0 forward, 1 backward, else a seed
  unsigned state = 0;

  unsigned draw(unsigned below) {
    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
  }
  void arrange(int* items, int n) {
    for (int i = 0; i < n; i++) items[i] = number == 1 ? n - 1 - i : i;
    if (number < 2) return;
    for (int i = n - 1; i > 0; i--) std::swap(items[i], items[draw(static_cast<unsigned>(i) + 1)]);
  }
};

void fill_shared() {
  for (Margin* margin : {kernel->shared, kernel->shared_end})
    for (auto& word : margin->words) word = ASTRAY;
  char *start = reinterpret_cast<char*>(kernel->shared + 1), *end = reinterpret_cast<char*>(kernel->shared_end);
  memset(start, UNWRITTEN, static_cast<size_t>(end - start));
}

void check_shared() {
  for (Margin* margin : {kernel->shared, kernel->shared_end})
    for (auto word : margin->words)
      if (word != ASTRAY) fail("a write past shared memory", {0});
}

void check_done() {
  for (int i = 0; i < threads; i++) {
    if (fibers[i].state == State::done) continue;
    threadIdx = fibers[i].index;
    bool barrier = fibers[i].state == State::at_barrier;
    fail(barrier ? "not every thread reaches __syncthreads" : "not every lane reaches the exchange", fibers[i].line);
  }
}

// The lanes of a warp, again and again, until none can go on or the block's barrier opens.
void run_warp(int first, const int* lanes) {
  for (bool moved = true; moved;) {
    moved = false;
    for (int l = 0; l < WARP; l++) {
      int i = first + lanes[l];
      if (fibers[i].state != State::ready) continue;
      resume(i);
      if (opened) return;
      moved = true;
    }
  }
}

void run_block(Order& order) {
  int warp_order[MOST_THREADS / WARP], lane_order[WARP];
  order.arrange(warp_order, threads / WARP);
  order.arrange(lane_order, WARP);
  fill_shared();
  memset(warps, 0, sizeof warps);
  at_barrier = 0;
  for (int i = 0; i < threads; i++) fibers[i].state = State::ready;
  do {
    opened = false;
    for (int w = 0; w < threads / WARP && !opened; w++) run_warp(warp_order[w] * WARP, lane_order);
  } while (opened);
  check_done();
  check_shared();
}

void run_grid(Order order) {
  unsigned long long x = gridDim.x, y = gridDim.y, blocks = x * y * gridDim.z, first = 0, step = 1;
  if (order.number == 1) first = step = blocks - 1;
  if (order.number > 1) {
    order.state = static_cast<unsigned>(order.number) * 2654435761u;
    first = order.draw(1 << 24) % blocks, step = order.draw(1 << 24) % blocks;
    while (std::gcd(step, blocks) != 1) step++;
  }
  for (unsigned long long i = 0; i < blocks; i++) {
    unsigned long long b = (first + i * step) % blocks;
    blockIdx = {static_cast<unsigned>(b % x), static_cast<unsigned>(b / x % y), static_cast<unsigned>(b / (x * y))};
    run_block(order);
  }
}

void arrive(State state, Line line) {
  fibers[current].state = state, fibers[current].line = line;
}

void release(int first, int n, const char* otherwise) {
  for (int i = first; i < first + n; i++) {
    if (fibers[i].line.number != fibers[current].line.number) fail(otherwise, fibers[current].line);
    fibers[i].state = State::ready;
  }
}

}  // namespace

void gpunet::meet_block(Line line) {
  arrive(State::at_barrier, line);
  if (++at_barrier == threads) {
    release(0, threads, "threads meet at different __syncthreads");
    at_barrier = 0;
    opened = true;
  }
  leave();  // the last one, too
}

void gpunet::meet_warp(void* value, int size, int source, unsigned mask, Line line) {
  if (mask != 0xffffffffu) fail("an exchange among some of the lanes only", line);
  int lane = current % WARP;
  Warp& warp = warps[current / WARP];
  auto& slots = warp.slots[warp.exchanges % 2];
  memcpy(slots[lane], value, static_cast<size_t>(size));
  arrive(State::at_exchange, line);
  if (++warp.arrived == WARP) {
    release(current - lane, WARP, "lanes meet at different exchanges");
    warp.arrived = 0;
    warp.exchanges++;
  }
  leave();
  memcpy(value, slots[source], static_cast<size_t>(size));
}

// The error, or null. The host has checked grid, block and arguments.
extern "C" const char* gpunet_run(const gpunet::Kernel* which, const unsigned* sizes, void** values, int order) {
  kernel = which, arguments = values;
  gridDim = {sizes[0], sizes[1], sizes[2]};
  blockDim = {sizes[3], sizes[4], sizes[5]};
  threads = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
  if (!stack_of(0)) return "no memory for the stacks";
  for (int i = 0; i < threads; i++) prepare(static_cast<unsigned>(i));
  runner = pthread_self();
  Handlers handlers;
  handlers.install();
  const char* error = nullptr;
  if (sigsetjmp(failed, 1)) {
    error = message;
    for (Fiber& fiber : fibers) fiber.started = false;  // what is on their stacks is given up
  } else {
    run_grid({order});
  }
  handlers.restore();
  return error;
}

#ifdef __aarch64__
using half = __fp16;  // g++ 12 has no _Float16 here
#else
using half = _Float16;
#endif

float half_to_float(unsigned short bits) { return static_cast<float>(gpunet::bits<half>(bits)); }
unsigned short float_to_half(float number) { return gpunet::bits<unsigned short>(static_cast<half>(number)); }
