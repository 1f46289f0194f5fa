// Threads that share one step of a decoder: the driver hands out phases, and all threads take items of a phase.
#pragma once

#include <atomic>
#include <sched.h>

#include "kernels.h"

namespace llm_run {

// A phase of a few microseconds cannot afford a fork and join of OpenMP (10 us and more with a passive wait policy), so
// that within one parallel region workers spin for the next phase. They give way after a while: cores may be shared.
class Team {
  public:
    explicit Team(int threads) : threads_(threads) {}

    int threads() const { return threads_; }
    bool is_together() const { return together_; }

    // Runs driver() on this thread with the others at hand for each(); returns when they are gone.
    template <typename Driver>
    void lead(Driver driver) {
        together_ = true;
#pragma omp parallel num_threads(threads_)
        {
#pragma omp single
            present_ = omp_get_num_threads();
            if (omp_get_thread_num() == 0) {
                driver();
                publish(nullptr, nullptr, 0, 1);
            } else {
                serve();
            }
        }
        together_ = false;
    }

    // Calls body(item) for every item, `step` neighbours at a time, each once, on whichever thread comes first. Outside of
    // lead() a parallel region of its own is opened.
    template <typename Body>
    void each(int64_t items, int64_t step, Body body) {
        const auto call = [](void* what, int64_t item) { (*static_cast<Body*>(what))(item); };
        if (!together_ && threads_ > 1 && items > step) {
            present_ = threads_;
            next_.store(0, std::memory_order_relaxed);
            body_ = &body, call_ = call, items_ = items, step_ = step;
#pragma omp parallel num_threads(threads_)
            work();
            return;
        }
        if (threads_ == 1 || items <= step) {
            for (int64_t item = 0; item < items; ++item) body(item);
            return;
        }
        publish(&body, call, items, step);
        work();
        wait_until([this] { return idle_.load(std::memory_order_acquire) == present_ - 1; });
    }

  private:
    using Call = void (*)(void*, int64_t);

    void publish(void* body, Call call, int64_t items, int64_t step) {
        body_ = body, call_ = call, items_ = items, step_ = step;
        next_.store(0, std::memory_order_relaxed);
        idle_.store(0, std::memory_order_relaxed);
        epoch_.fetch_add(1, std::memory_order_release);
    }

    void serve() {
        for (int64_t seen = 0;; ) {
            wait_until([&] { return epoch_.load(std::memory_order_acquire) != seen; });
            ++seen;
            if (call_ == nullptr) return;
            work();
            idle_.fetch_add(1, std::memory_order_release);
        }
    }

    void work() {
        for (;;) {
            const int64_t start = next_.fetch_add(step_, std::memory_order_relaxed);
            if (start >= items_) return;
            const int64_t end = start + step_ < items_ ? start + step_ : items_;
            for (int64_t item = start; item < end; ++item) call_(body_, item);
        }
    }

    template <typename Condition>
    void wait_until(Condition condition) {
        for (int64_t spins = 0; !condition(); ++spins) {
            if (spins < 4096) _mm_pause();
            else sched_yield();
        }
    }

    const int threads_;
    int present_ = 1;
    bool together_ = false;
    void* body_ = nullptr;
    Call call_ = nullptr;
    int64_t items_ = 0, step_ = 1;
    alignas(64) std::atomic<int64_t> next_{0};
    alignas(64) std::atomic<int64_t> epoch_{0};
    alignas(64) std::atomic<int64_t> idle_{0};
};

}  // namespace llm_run
