/* segue top: what the lanes of a directory do, once a second. */
#include "cli/top.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/ask.h"
#include "cli/screen.h"
#include "cli/script.h"
#include "cli/terminal.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/layout.h"
#include "core/wait.h"
#include "report/request.h"

#define REFRESH_NS       INT64_C(1000000000)
#define ANSWER_WITHIN_NS INT64_C(3000000000)

enum { WIDTH = 160 }; /* where there is no terminal */

/* ---- A look ---- */

struct asking {
	int64_t deadline_ns;
	segue_interrupt_fn *interrupt;
	bool given_up;
};

static int look_up(void *arg)
{
	struct asking *asking = arg;

	asking->given_up = asking->interrupt && asking->interrupt(NULL);
	return asking->given_up || segue_now_ns() >= asking->deadline_ns;
}

/* A connection for each: an embedded server ends with its last client, and that is not us. */
static int ask(const struct segue_cli_options *options, struct asking *asking, char **status)
{
	const struct segue_open_options how = {.size = sizeof(how),
		.socket_path = options->socket,
		.no_start = true,
		.timeout_ns = ANSWER_WITHIN_NS,
		.interrupt = look_up,
		.arg = asking};
	struct segue_client *client;

	int rc = segue_open(options->dir, &how, &client);
	if (rc)
		return rc;
	rc = segue_client_report(client, SEGUE_REPORT_STATUS, NULL, NULL, status);
	segue_client_close(client);
	return rc;
}

static void read_store(const struct segue_cli_options *options, char **inspect)
{
	struct segue_store *store;

	if (*inspect || segue_store_open(options->dir, SEGUE_STORE_READ, &store))
		return;
	if (segue_report_store(store, options->dir, SEGUE_REPORT_INSPECT, "", "", inspect))
		*inspect = NULL;
	segue_store_close(store);
}

/* Nobody answers, for `rc` and this thread's detail. */
static int look_at_store(
	const struct segue_cli_options *options, int rc, char **inspect, struct segue_look *look)
{
	char trouble[SEGUE_ERROR_TEXT];
	long pid = 0;

	snprintf(trouble, sizeof(trouble), "%s", segue_error_detail());
	int held = segue_cli_lock_holder(options->dir, &pid);
	if (held < 0)
		return held;
	if (held && rc == SEGUE_EINTERRUPTED)
		snprintf(trouble, sizeof(trouble),
			"process %ld, which serves %s, does not answer: is it stopped, or its "
			"disk?",
			pid, options->dir);
	else if (held && pid && rc == SEGUE_EGONE)
		snprintf(trouble, sizeof(trouble),
			"process %ld has %s and does not answer: it starts, or ends, or its socket "
			"is elsewhere (--socket)",
			pid, options->dir);
	else if (rc == SEGUE_EGONE)
		snprintf(trouble, sizeof(trouble), "no server runs for %s", options->dir);
	if (!held)
		read_store(options, inspect);
	char *dir = segue_cli_need(segue_cli_absolute(options->dir)); /* as a server says it */
	rc = segue_look_read_store(*inspect, dir, trouble, segue_now_ns(), segue_unix_ms(), look);
	free(dir);
	return rc;
}

int segue_top_look(const struct segue_cli_options *options, segue_interrupt_fn *interrupt,
	char **inspect, struct segue_look *look)
{
	struct asking asking = {segue_now_ns() + ANSWER_WITHIN_NS, interrupt, false};
	char *status = NULL;

	int rc = ask(options, &asking, &status);
	if (rc && asking.given_up)
		return SEGUE_EINTERRUPTED;
	if (rc)
		return look_at_store(options, rc, inspect, look);
	segue_free(*inspect);
	*inspect = NULL;
	rc = segue_look_read(status, segue_now_ns(), segue_unix_ms(), look);
	segue_free(status);
	if (rc)
		segue_look_finish(look);
	else
		segue_script_find(look);
	return rc;
}

/* ---- One after the other ---- */

struct top {
	const struct segue_cli_options *options;
	char *inspect;
	struct segue_look look; /* the last */
	bool looked;
	int64_t next_ns;
};

/* Into top->look, compared with the one before. */
static int refresh(struct top *top, segue_interrupt_fn *interrupt)
{
	struct segue_look look;

	top->next_ns = segue_now_ns() + REFRESH_NS;
	int rc = segue_top_look(top->options, interrupt, &top->inspect, &look);
	if (rc)
		return rc;
	segue_look_compare(&look, top->looked ? &top->look : NULL);
	segue_look_finish(&top->look);
	top->look = look;
	top->looked = true;
	return 0;
}

static void wait_for_next(const struct top *top)
{
	int64_t left = top->next_ns - segue_now_ns();

	if (left > 0)
		usleep((useconds_t)(left / 1000));
}

static int print(const struct top *top, bool first)
{
	struct segue_screen screen = {.columns = WIDTH};
	char *text;
	int rc = 0;

	if (top->options->json) {
		rc = segue_look_json(&top->look, &text);
		if (!rc)
			puts(text);
	} else {
		text = segue_screen_draw(&top->look, &screen);
		printf("%s%s", first ? "" : "\n", text);
	}
	if (!rc)
		free(text);
	fflush(stdout);
	return rc;
}

/* Rates are between two looks: so there is one more than is printed. */
static int run_plainly(struct top *top, int64_t count)
{
	int rc = refresh(top, NULL);

	for (int64_t i = 0; !rc && (count == 0 || i < count) && !ferror(stdout); i++) {
		wait_for_next(top);
		rc = refresh(top, NULL);
		if (!rc)
			rc = print(top, i == 0);
	}
	return rc;
}

static int wants_out(void *arg)
{
	(void)arg;
	return segue_terminal_wants_out();
}

static void draw(const struct top *top, struct segue_screen *screen)
{
	const char *no_colour = getenv("NO_COLOR");

	segue_terminal_size(&screen->columns, &screen->rows);
	screen->colour = !no_colour || !*no_colour;
	char *text = segue_screen_draw(&top->look, screen);
	if (screen->first > screen->last_first)
		screen->first = screen->last_first;
	segue_terminal_show(text, screen->rows);
	free(text);
}

static void scroll(struct segue_screen *screen, enum segue_key key)
{
	int page = screen->seen > 1 ? screen->seen - 1 : 1;

	if (key == SEGUE_KEY_UP || key == SEGUE_KEY_PAGE_UP)
		screen->first -= key == SEGUE_KEY_UP ? 1 : page;
	else if (key == SEGUE_KEY_DOWN || key == SEGUE_KEY_PAGE_DOWN)
		screen->first += key == SEGUE_KEY_DOWN ? 1 : page;
	else if (key == SEGUE_KEY_HOME)
		screen->first = 0;
	else if (key == SEGUE_KEY_END)
		screen->first = screen->last_first;
	screen->first = screen->first < screen->last_first ? screen->first : screen->last_first;
	screen->first = screen->first > 0 ? screen->first : 0;
}

static int run_on_terminal(struct top *top)
{
	struct segue_screen screen = {0};
	enum segue_key key = SEGUE_KEY_NONE;
	int rc = refresh(top, NULL);

	if (!rc)
		rc = segue_terminal_enter();
	while (!rc && key != SEGUE_KEY_QUIT) {
		if (segue_now_ns() >= top->next_ns)
			rc = refresh(top, wants_out);
		if (rc)
			break;
		draw(top, &screen);
		key = segue_terminal_key(top->next_ns);
		scroll(&screen, key);
	}
	segue_terminal_leave();
	return rc == SEGUE_EINTERRUPTED ? 0 : rc;
}

static int run_top(const struct segue_cli_options *options)
{
	struct top top = {.options = options};
	int64_t count = options->once ? 1 : options->count;
	bool plain = options->json || count > 0 || !segue_terminal_is_there();

	if (plain && !options->json && count == 0)
		count = 1;
	int rc = plain ? run_plainly(&top, count) : run_on_terminal(&top);
	bool served = top.look.served;
	segue_look_finish(&top.look);
	segue_free(top.inspect);
	if (rc)
		return segue_cli_fail();
	return served || !plain ? SEGUE_CLI_FINE : SEGUE_CLI_WRONG;
}

const struct segue_cli_command segue_cli_top = {
	.name = "top",
	.operands = "DIR",
	.summary = "watch the lanes of a directory",
	.help = "Of each lane: the process that has it and what that runs (WORKER), its EPOCH of\n"
		"how many, from 1; its STEP, batches a second (B/S); the share of the last second\n"
		"in which the worker waited for data (WWAIT), and in which the ring was full, so\n"
		"that the server waited (SWAIT); the RING: batches filled ahead, of how many; how\n"
		"old the last commit on disk (COMM) and the last checkpoint (CKPT) are; and about\n"
		"how long the lane takes yet (ETA). Where there is no room, CKPT goes first, then\n"
		"EPOCH, ETA, COMM, RING, SWAIT, WWAIT. Below: who waits for whom, and of each\n"
		"stream the share of padding, and the exposed data wait: how long a batch was\n"
		"waited for, of the worker that waits most. Where no server runs: what the store\n"
		"has.\n\n"
		"Keys: arrows, page keys, Home, End: other lanes. q: end. Where standard output\n"
		"or input is no terminal, one screen is printed, after a second. No colours with\n"
		"NO_COLOR in the environment.\n\n"
		"Exit status: 0 fine, 1 there is no such directory, or (where no screen is shown)\n"
		"no server answered, 2 wrong usage.\n",
	.takes = SEGUE_CLI_JSON | SEGUE_CLI_SOCKET | SEGUE_CLI_REFRESHES,
	.operands_min = 1,
	.operands_max = 1,
	.run = run_top,
};
