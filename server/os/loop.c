/* The server's event loop. */
#include "os/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "core/error.h"
#include "core/list.h"
#include "core/wait.h"

enum { EVENTS_AT_ONCE = 64, RESERVE = 1024 };

struct posted {
	struct posted *next;
	void (*fn)(void *arg);
	void *arg;
};

struct segue_loop {
	int epoll;
	struct segue_watch signals, wake;
	pthread_mutex_t lock; /* of the lists */
	struct posted *first, **last;
	struct posted *spare; /* of the reserve, for when there is no memory */
	struct posted reserve[RESERVE];
	int64_t tick_at;
	unsigned awaited;
	bool stopped;
	struct epoll_event events[EVENTS_AT_ONCE];
	int event_count, event_at; /* being worked through */
	void (*signalled)(void *arg, int signal);
	void *arg;
};

static void signal_mask(sigset_t *mask)
{
	sigemptyset(mask);
	sigaddset(mask, SIGTERM);
	sigaddset(mask, SIGINT);
}

void segue_loop_block_signals(void)
{
	sigset_t mask;

	signal_mask(&mask);
	pthread_sigmask(SIG_BLOCK, &mask, NULL);
}

static void read_signals(struct segue_watch *watch, uint32_t events)
{
	struct segue_loop *loop = SEGUE_CONTAINER(watch, struct segue_loop, signals);
	struct signalfd_siginfo info;

	(void)events;
	while (read(watch->fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (loop->signalled)
			loop->signalled(loop->arg, (int)info.ssi_signo);
	}
}

static void read_wake(struct segue_watch *watch, uint32_t events)
{
	(void)events;
	segue_event_clear(watch->fd);
}

int segue_loop_create(struct segue_loop **out)
{
	struct segue_loop *loop = calloc(1, sizeof(*loop));
	sigset_t mask;

	if (!loop)
		return segue_fail(SEGUE_ENOMEM, "no memory for the event loop");
	signal_mask(&mask);
	pthread_mutex_init(&loop->lock, NULL);
	loop->last = &loop->first;
	for (size_t i = 0; i < RESERVE; i++) {
		loop->reserve[i].next = loop->spare;
		loop->spare = &loop->reserve[i];
	}
	loop->tick_at = INT64_MAX;
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	loop->signals = (struct segue_watch){
		.fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK), .ready = read_signals};
	loop->wake = (struct segue_watch){.fd = segue_event_create(), .ready = read_wake};
	if (loop->epoll < 0 || loop->signals.fd < 0 || loop->wake.fd < 0 ||
		segue_loop_add(loop, &loop->signals, EPOLLIN) ||
		segue_loop_add(loop, &loop->wake, EPOLLIN)) {
		int rc = segue_fail_errno(SEGUE_ESYSTEM, "the event loop cannot be made");
		segue_loop_destroy(loop);
		return rc;
	}
	*out = loop;
	return 0;
}

/* With the lock. */
static struct posted *take_spare(struct segue_loop *loop)
{
	struct posted *spare = loop->spare;

	/* A lost completion would leave the server waiting for ever: then rather none at all. */
	if (!spare)
		abort();
	loop->spare = spare->next;
	return spare;
}

static void free_posted(struct segue_loop *loop, struct posted *posted)
{
	if (posted < loop->reserve || posted >= loop->reserve + RESERVE) {
		free(posted);
		return;
	}
	pthread_mutex_lock(&loop->lock);
	posted->next = loop->spare;
	loop->spare = posted;
	pthread_mutex_unlock(&loop->lock);
}

static void run_posted(struct segue_loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	struct posted *posted = loop->first;
	loop->first = NULL;
	loop->last = &loop->first;
	pthread_mutex_unlock(&loop->lock);
	while (posted) {
		struct posted *next = posted->next;
		posted->fn(posted->arg);
		free_posted(loop, posted);
		posted = next;
	}
}

void segue_loop_destroy(struct segue_loop *loop)
{
	if (!loop)
		return;
	run_posted(loop);
	close(loop->epoll);
	close(loop->signals.fd);
	close(loop->wake.fd);
	pthread_mutex_destroy(&loop->lock);
	free(loop);
}

static int control(struct segue_loop *loop, int op, struct segue_watch *watch, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = watch};

	if (epoll_ctl(loop->epoll, op, watch->fd, &event) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "cannot wait for another descriptor");
	return 0;
}

int segue_loop_add(struct segue_loop *loop, struct segue_watch *watch, uint32_t events)
{
	return control(loop, EPOLL_CTL_ADD, watch, events);
}

int segue_loop_change(struct segue_loop *loop, struct segue_watch *watch, uint32_t events)
{
	return control(loop, EPOLL_CTL_MOD, watch, events);
}

void segue_loop_remove(struct segue_loop *loop, struct segue_watch *watch)
{
	control(loop, EPOLL_CTL_DEL, watch, 0);
	for (int i = loop->event_at; i < loop->event_count; i++) {
		if (loop->events[i].data.ptr == watch)
			loop->events[i].data.ptr = NULL;
	}
}

void segue_loop_post(struct segue_loop *loop, void (*fn)(void *arg), void *arg)
{
	struct posted *posted = malloc(sizeof(*posted));

	pthread_mutex_lock(&loop->lock);
	if (!posted)
		posted = take_spare(loop);
	*posted = (struct posted){.fn = fn, .arg = arg};
	*loop->last = posted;
	loop->last = &posted->next;
	pthread_mutex_unlock(&loop->lock);
	segue_event_ring(loop->wake.fd);
}

void segue_loop_await(struct segue_loop *loop)
{
	loop->awaited++;
}

void segue_loop_arrive(struct segue_loop *loop)
{
	loop->awaited--;
}

unsigned segue_loop_awaited(const struct segue_loop *loop)
{
	return loop->awaited;
}

void segue_loop_tick_within(struct segue_loop *loop, int64_t when)
{
	if (when < loop->tick_at)
		loop->tick_at = when;
}

void segue_loop_stop(struct segue_loop *loop)
{
	loop->stopped = true;
}

static int timeout_ms(const struct segue_loop *loop)
{
	if (loop->tick_at == INT64_MAX)
		return -1;
	int64_t left = loop->tick_at - segue_now_ns();
	if (left <= 0)
		return 0;
	left = (left + 999999) / 1000000;
	return left > 60000 ? 60000 : (int)left;
}

int segue_loop_run(struct segue_loop *loop, void (*tick)(void *arg, int64_t now),
	void (*signalled)(void *arg, int signal), void *arg)
{
	loop->signalled = signalled;
	loop->arg = arg;
	loop->stopped = false;
	while (!loop->stopped) {
		int count = epoll_wait(loop->epoll, loop->events, EVENTS_AT_ONCE, timeout_ms(loop));
		if (count < 0 && errno != EINTR)
			return segue_fail_errno(SEGUE_ESYSTEM, "cannot wait for anything");
		loop->event_count = count < 0 ? 0 : count;
		for (loop->event_at = 0; loop->event_at < loop->event_count;) {
			struct epoll_event *event = &loop->events[loop->event_at++];
			struct segue_watch *watch = event->data.ptr;
			if (watch)
				watch->ready(watch, event->events);
		}
		loop->event_count = 0;
		run_posted(loop);
		loop->tick_at = INT64_MAX;
		tick(arg, segue_now_ns());
	}
	return 0;
}
