/*
 * The memory-order primitives: everything that two processes share goes through these.
 *
 * Four operations, on _Atomic uint32_t and _Atomic uint64_t. Each use names the line that it pairs
 * with. In the simulator (SEGUE_SIM) they go to its model of a machine with store buffers instead,
 * so that the code that runs there is the code that ships.
 */
#ifndef SEGUE_CORE_BARRIER_H
#define SEGUE_CORE_BARRIER_H

#include <stdatomic.h>
#include <stdint.h>

#ifdef SEGUE_SIM

uint64_t segue_sim_load64(const _Atomic uint64_t *word);
uint32_t segue_sim_load32(const _Atomic uint32_t *word);
void segue_sim_store64(_Atomic uint64_t *word, uint64_t value);
void segue_sim_store32(_Atomic uint32_t *word, uint32_t value);
void segue_sim_fence(void);

#define segue_load_acquire(word)                                                                   \
	_Generic((word), const _Atomic uint64_t *                                                  \
		 : segue_sim_load64, _Atomic uint64_t *                                            \
		 : segue_sim_load64, const _Atomic uint32_t *                                      \
		 : segue_sim_load32, _Atomic uint32_t *                                            \
		 : segue_sim_load32)(word)
#define segue_load_relaxed(word) segue_load_acquire(word)
#define segue_store_release(word, value)                                                           \
	_Generic((word), _Atomic uint64_t *                                                        \
		 : segue_sim_store64, _Atomic uint32_t *                                           \
		 : segue_sim_store32)(word, value)
#define segue_fence() segue_sim_fence()

#else

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2,
	"words shared between processes must be lock-free");

#define segue_load_acquire(word) atomic_load_explicit((word), memory_order_acquire)
#define segue_load_relaxed(word) atomic_load_explicit((word), memory_order_relaxed)
#define segue_store_release(word, value)                                                           \
	atomic_store_explicit((word), (value), memory_order_release)
/* Orders an earlier store before a later load: nothing weaker does. */
#define segue_fence() atomic_thread_fence(memory_order_seq_cst)

#endif

/*
 * A point where a mutant of a test differs from the code: 0 in every other build, so that the
 * branch is gone. Those of the simulators are named in tests/sim/mutants.h and
 * tests/sim/log/mutants.h, those of store and log (SEGUE_MUTANTS) in tests/crash/mutants.h.
 */
#if defined(SEGUE_SIM)
int segue_sim_mutant(const char *name);
#define SEGUE_MUTANT(name) segue_sim_mutant(#name)
#elif defined(SEGUE_MUTANTS)
int segue_crash_mutant(const char *name);
#define SEGUE_MUTANT(name) segue_crash_mutant(#name)
#else
#define SEGUE_MUTANT(name) 0
#endif

#endif
