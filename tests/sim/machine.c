/* The machine that the simulator runs on. */
#undef _FORTIFY_SOURCE /* its longjmp refuses to change stacks */
#include "machine.h"

#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#include "core/barrier.h"
#include "core/wait.h"

#if defined(__SANITIZE_ADDRESS__)
#define SIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIM_ASAN 1
#endif
#endif
#ifdef SIM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define STACK_SIZE (256u << 10)
#else
#define STACK_SIZE (64u << 10)
#endif

#define ACTORS     32
#define BUFFER     16
#define STEPS_MAX  2000000
#define WEAK_JUMPS 8
#define WEAK_TIME  16000 /* several times the longest weak timer */

enum state { UNUSED, READY, BLOCKED };

struct store {
	void *word;
	uint64_t value;
	bool wide;
};

struct actor {
	enum state state;
	const char *name;
	int process;
	void (*body)(void *arg);
	void *arg;
	bool started;
	ucontext_t entry;
	jmp_buf context;
	void *fake_stack;
	const void *on;     /* what it is blocked on */
	bool futex;         /* ... and that is a futex */
	const bool *alive;  /* see sim_sleep_while */
	int64_t deadline;   /* of its wait */
	int64_t still_till; /* stopped until then */
	struct store buffer[BUFFER];
	unsigned first, count;
};

uint64_t sim_happened[SIM_EVENT_KINDS];

static char stacks[ACTORS][STACK_SIZE] __attribute__((aligned(64)));

static struct {
	struct sim_options options;
	struct sim_failure failure;
	bool over;
	uint64_t random;
	int64_t now, fault_at, timer_at;
	void (*strike)(void), (*timer)(void);
	bool striking;
	int mutant;
	uint32_t switch_one_in, drain_one_in;
	unsigned buffered;
	int weak_jumps;
	int64_t weak_since;    /* the first of them */
	struct actor *current; /* NULL: the main stack */
	struct actor actors[ACTORS];
	jmp_buf home;
	void *home_fake_stack;
	const void *home_stack;
	size_t home_size;
} machine;

/* ---- Chance --------------------------------------------------------------------------------- */

uint64_t sim_mix(uint64_t a, uint64_t b)
{
	uint64_t z = a + 0x9e3779b97f4a7c15u * (b + 1);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

uint64_t sim_random(void)
{
	machine.random += 0x9e3779b97f4a7c15u;
	return sim_mix(machine.random, 0);
}

uint32_t sim_below(uint32_t bound)
{
	return (uint32_t)(((sim_random() >> 32) * bound) >> 32);
}

bool sim_one_in(uint32_t n)
{
	return sim_below(n) == 0;
}

int64_t sim_now(void)
{
	return machine.now;
}

void sim_next_fault(int64_t when)
{
	machine.fault_at = when;
}

void sim_timer(int64_t when)
{
	machine.timer_at = when;
}

/* ---- Changing stacks ------------------------------------------------------------------------ */

static void arrive(struct actor *actor)
{
	(void)actor;
#ifdef SIM_ASAN
	void *fake = actor ? actor->fake_stack : machine.home_fake_stack;
	const void *stack;
	size_t size;
	__sanitizer_finish_switch_fiber(fake, &stack, &size);
#endif
}

static void leave_for(struct actor *from, struct actor *to)
{
	(void)from;
	(void)to;
#ifdef SIM_ASAN
	void **fake = from ? &from->fake_stack : &machine.home_fake_stack;
	if (to)
		__sanitizer_start_switch_fiber(fake, stacks[to - machine.actors], STACK_SIZE);
	else
		__sanitizer_start_switch_fiber(fake, machine.home_stack, machine.home_size);
#endif
}

static void reschedule(void);

static void enter_actor(void)
{
#ifdef SIM_ASAN
	const void *stack;
	size_t size;
	__sanitizer_finish_switch_fiber(NULL, &stack, &size);
	if (!machine.home_stack) {
		machine.home_stack = stack;
		machine.home_size = size;
	}
#endif
	struct actor *self = machine.current;
	self->body(self->arg);
	segue_sim_fence();
	self->state = UNUSED;
	reschedule();
}

/* Goes on as `to` (NULL: the main stack); returns when somebody comes back. */
static void change_to(struct actor *to)
{
	struct actor *from = machine.current;

	if (from == to)
		return;
	if (_setjmp(from ? from->context : machine.home)) {
		arrive(machine.current);
		return;
	}
	machine.current = to;
	leave_for(from, to);
	if (!to)
		_longjmp(machine.home, 1);
	if (to->started)
		_longjmp(to->context, 1);
	to->started = true;
	setcontext(&to->entry);
}

/* ---- Store buffers -------------------------------------------------------------------------- */

static void drain_one(struct actor *actor)
{
	struct store *store = &actor->buffer[actor->first];

	if (store->wide)
		atomic_store_explicit(
			(_Atomic uint64_t *)store->word, store->value, memory_order_relaxed);
	else
		atomic_store_explicit((_Atomic uint32_t *)store->word, (uint32_t)store->value,
			memory_order_relaxed);
	actor->first = (actor->first + 1) % BUFFER;
	actor->count--;
	machine.buffered--;
}

static void drain(struct actor *actor)
{
	while (actor && actor->count)
		drain_one(actor);
}

static void drain_some(void)
{
	if (!machine.buffered || !sim_one_in(machine.drain_one_in))
		return;
	unsigned start = sim_below(ACTORS);
	for (unsigned i = 0; i < ACTORS; i++) {
		struct actor *actor = &machine.actors[(start + i) % ACTORS];
		if (actor->count) {
			drain_one(actor);
			return;
		}
	}
}

static void put(void *word, uint64_t value, bool wide)
{
	struct actor *self = machine.current;

	sim_point();
	if (self->count == BUFFER)
		drain_one(self);
	self->buffer[(self->first + self->count++) % BUFFER] = (struct store){word, value, wide};
	machine.buffered++;
}

/* This actor's own newest store to the word. */
static const struct store *own_store(const void *word)
{
	const struct actor *self = machine.current;

	for (unsigned i = self->count; i-- > 0;) {
		const struct store *store = &self->buffer[(self->first + i) % BUFFER];
		if (store->word == word)
			return store;
	}
	return NULL;
}

uint64_t segue_sim_load64(const _Atomic uint64_t *word)
{
	sim_point();
	const struct store *store = own_store((const void *)word);
	return store ? store->value : atomic_load_explicit(word, memory_order_relaxed);
}

uint32_t segue_sim_load32(const _Atomic uint32_t *word)
{
	sim_point();
	const struct store *store = own_store((const void *)word);
	return store ? (uint32_t)store->value : atomic_load_explicit(word, memory_order_relaxed);
}

void segue_sim_store64(_Atomic uint64_t *word, uint64_t value)
{
	put((void *)word, value, true);
}

void segue_sim_store32(_Atomic uint32_t *word, uint32_t value)
{
	put((void *)word, value, false);
}

void segue_sim_fence(void)
{
	sim_point();
	drain(machine.current);
}

/* ---- Scheduling ----------------------------------------------------------------------------- */

static bool runs(struct actor *actor)
{
	if (actor->state == BLOCKED && actor->deadline <= machine.now)
		actor->state = READY;
	return actor->state == READY && actor->still_till <= machine.now;
}

static struct actor *pick(void)
{
	unsigned start = sim_below(ACTORS);

	for (unsigned i = 0; i < ACTORS; i++) {
		struct actor *actor = &machine.actors[(start + i) % ACTORS];
		if (actor->state != UNUSED && runs(actor))
			return actor;
	}
	return NULL;
}

static void list_blocked(char *text, size_t size)
{
	size_t used = 0;

	text[0] = 0;
	for (unsigned i = 0; i < ACTORS; i++) {
		const struct actor *actor = &machine.actors[i];
		if (actor->state != UNUSED && used < size)
			used += (size_t)snprintf(text + used, size - used, " %s%s", actor->name,
				actor->futex ? "(futex)" : "");
	}
}

/* Nobody can run: what is under way comes about, or the clock jumps. */
static void idle(void)
{
	int64_t strong = machine.timer_at, weak = SIM_NEVER;
	char who[256];

	for (unsigned i = 0; i < ACTORS; i++) {
		struct actor *actor = &machine.actors[i];
		drain(actor);
		if (actor->state == READY && actor->still_till < strong)
			strong = actor->still_till;
		if (actor->state == BLOCKED && actor->deadline < weak)
			weak = actor->deadline;
	}
	if (strong != SIM_NEVER)
		machine.weak_jumps = 0;
	else if (machine.weak_jumps++ == 0)
		machine.weak_since = machine.now;
	int64_t next = strong < weak ? strong : weak;
	if (next == SIM_NEVER ||
		(machine.weak_jumps > WEAK_JUMPS && machine.now - machine.weak_since > WEAK_TIME)) {
		list_blocked(who, sizeof(who));
		sim_fail("deadlock", "nobody can go on:%s", who);
		return;
	}
	if (next > machine.now)
		machine.now = next;
}

static void run_timer(void)
{
	if (machine.timer_at <= machine.now) {
		machine.timer_at = SIM_NEVER;
		machine.timer();
	}
}

static void reschedule(void)
{
	for (;;) {
		run_timer();
		struct actor *next = machine.over ? NULL : pick();
		if (next || machine.over) {
			change_to(next);
			return;
		}
		idle();
	}
}

void sim_point(void)
{
	machine.now++;
	drain_some();
	if (machine.now >= machine.fault_at && !machine.striking) {
		machine.fault_at = SIM_NEVER;
		machine.striking = true;
		machine.strike();
		machine.striking = false;
	}
	if (machine.now > STEPS_MAX)
		sim_fail("livelock", "%d steps", STEPS_MAX);
	const struct actor *self = machine.current;
	if (self->state == UNUSED || self->still_till > machine.now ||
		machine.timer_at <= machine.now || sim_one_in(machine.switch_one_in))
		reschedule();
}

static void block(const void *on, bool futex, int64_t deadline)
{
	struct actor *self = machine.current;

	self->on = on;
	self->futex = futex;
	self->deadline = deadline;
	self->state = BLOCKED;
	reschedule();
	self->on = NULL;
	self->futex = false;
}

static void wake(const void *on)
{
	for (unsigned i = 0; i < ACTORS; i++) {
		struct actor *actor = &machine.actors[i];
		if (actor->state == BLOCKED && actor->on == on)
			actor->state = READY;
	}
}

/* ---- Actors --------------------------------------------------------------------------------- */

static void prepare(struct actor *actor)
{
#ifdef SIM_ASAN
	/* One that was killed has left its frames there. */
	__asan_unpoison_memory_region(stacks[actor - machine.actors], STACK_SIZE);
#endif
	getcontext(&actor->entry);
	actor->entry.uc_stack.ss_sp = stacks[actor - machine.actors];
	actor->entry.uc_stack.ss_size = STACK_SIZE;
	actor->entry.uc_link = NULL;
	makecontext(&actor->entry, enter_actor, 0);
}

void sim_spawn(const char *name, int process, void (*body)(void *arg), void *arg)
{
	unsigned i = 0;

	/* Not the stack that we run on, should its actor just have been killed. */
	while (i < ACTORS &&
		(machine.actors[i].state != UNUSED || &machine.actors[i] == machine.current))
		i++;
	assert(i < ACTORS);
	struct actor *actor = &machine.actors[i];
	memset(actor, 0, sizeof(*actor));
	actor->state = READY;
	actor->name = name;
	actor->process = process;
	actor->body = body;
	actor->arg = arg;
	actor->deadline = SIM_NEVER;
	prepare(actor);
}

int sim_process(void)
{
	return machine.current ? machine.current->process : -1;
}

void sim_kill(int process)
{
	for (unsigned i = 0; i < ACTORS; i++) {
		struct actor *actor = &machine.actors[i];
		if (actor->state == UNUSED || actor->process != process)
			continue;
		drain(actor);
		actor->state = UNUSED;
	}
}

void sim_stop(int64_t until)
{
	machine.current->still_till = until;
}

bool sim_worker_stopped(void)
{
	for (unsigned i = 0; i < ACTORS; i++) {
		const struct actor *actor = &machine.actors[i];
		if (actor->state == READY && actor->process > 0 && actor->still_till > machine.now)
			return true;
	}
	return false;
}

void sim_progress(void)
{
	machine.weak_jumps = 0;
}

/* ---- Locks, events, sleep ------------------------------------------------------------------- */

static int self_number(void)
{
	return (int)(machine.current - machine.actors) + 1;
}

/* A mutex is its owner's number; it lies in what the C library would use. */
static int *owner_of(pthread_mutex_t *mutex)
{
	_Static_assert(sizeof(pthread_mutex_t) >= sizeof(int), "room for an owner");
	return (int *)(void *)mutex;
}

int sim_mutex_init(pthread_mutex_t *mutex)
{
	*owner_of(mutex) = 0;
	return 0;
}

int sim_mutex_lock(pthread_mutex_t *mutex)
{
	int *owner = owner_of(mutex);

	segue_sim_fence();
	assert(*owner != self_number());
	while (*owner)
		block(mutex, false, SIM_NEVER);
	*owner = self_number();
	return 0;
}

int sim_mutex_unlock(pthread_mutex_t *mutex)
{
	assert(*owner_of(mutex) == self_number());
	segue_sim_fence();
	*owner_of(mutex) = 0;
	wake(mutex);
	sim_point();
	return 0;
}

void sim_event_set(struct sim_event *event)
{
	event->set = true;
	wake(event);
}

void sim_event_ring(struct sim_event *event)
{
	segue_sim_fence();
	sim_event_set(event);
}

void sim_event_wait(struct sim_event *event, int64_t deadline)
{
	segue_sim_fence();
	if (!event->set && machine.now < deadline)
		block(event, false, deadline);
	event->set = false;
}

void sim_sleep_while(const bool *alive)
{
	machine.current->alive = alive;
}

void sim_wake_sleepers(void)
{
	for (unsigned i = 0; i < ACTORS; i++) {
		struct actor *actor = &machine.actors[i];
		if (actor->state == BLOCKED && actor->futex)
			actor->state = READY;
	}
}

bool segue_wait_word(const _Atomic uint32_t *word, uint32_t seen, int64_t deadline_ns)
{
	const struct actor *self = machine.current;

	assert(deadline_ns == INT64_MAX);
	segue_sim_fence();
	/* Compared and put to sleep in one step, as the kernel does. */
	if (atomic_load_explicit(word, memory_order_relaxed) == seen && *self->alive)
		block((const void *)word, true, SIM_NEVER);
	return true;
}

void segue_wake_word(_Atomic uint32_t *word)
{
	segue_sim_fence();
	wake((const void *)word);
}

/* ---- A run ---------------------------------------------------------------------------------- */

int segue_sim_mutant(const char *name)
{
	return machine.options.mutant && strcmp(machine.options.mutant, name) == 0;
}

void sim_trace(const char *format, ...)
{
	va_list args;

	if (!machine.options.trace)
		return;
	printf("%8lld %-10s ", (long long)machine.now,
		machine.current ? machine.current->name : "-");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

static void end_run(void)
{
	machine.over = true;
	if (machine.current)
		change_to(NULL);
}

void sim_finish(void)
{
	end_run();
}

void sim_fail(const char *check, const char *format, ...)
{
	va_list args;

	if (!machine.failure.failed) {
		machine.failure.failed = true;
		snprintf(machine.failure.check, sizeof(machine.failure.check), "%s", check);
		va_start(args, format);
		vsnprintf(machine.failure.text, sizeof(machine.failure.text), format, args);
		va_end(args);
		sim_trace("FAILED %s: %s", check, machine.failure.text);
	}
	end_run();
}

/* An assertion in the code under test is a check that did not hold. */
void __assert_fail(const char *assertion, const char *file, unsigned int line, const char *function)
{
	sim_fail("assert", "%s:%u %s: %s", file, line, function, assertion);
	fprintf(stderr, "%s:%u %s: %s\n", file, line, function, assertion);
	abort();
}

struct sim_failure sim_run(const struct sim_options *options, void (*begin)(void),
	void (*strike)(void), void (*timer)(void))
{
	static const uint32_t paces[] = {2, 3, 6, 12, 40};
	static const uint32_t drains[] = {2, 6, 20, 60};

	memset(&machine.failure, 0, sizeof(machine.failure));
	memset(machine.actors, 0, sizeof(machine.actors));
	machine.options = *options;
	machine.over = false;
	machine.random = sim_mix(options->seed, 77);
	machine.now = 0;
	machine.fault_at = machine.timer_at = SIM_NEVER;
	machine.strike = strike;
	machine.timer = timer;
	machine.striking = false;
	machine.buffered = 0;
	machine.weak_jumps = 0;
	machine.current = NULL;
	machine.switch_one_in = paces[sim_below(sizeof(paces) / sizeof(paces[0]))];
	machine.drain_one_in = drains[sim_below(sizeof(drains) / sizeof(drains[0]))];
	begin();
	reschedule();
	return machine.failure;
}
