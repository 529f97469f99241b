/* The terminal as a screen. */
#include "cli/terminal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "cli/cli.h"
#include "core/error.h"
#include "core/wait.h"

enum { COLUMNS = 80, ROWS = 24 };

/* Alternate screen, no cursor, long lines are cut; and back. */
#define ENTER "\x1b[?1049h\x1b[?25l\x1b[?7l"
#define LEAVE "\x1b[?7h\x1b[?25h\x1b[?1049l"

static const int caught[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH};

enum { CAUGHT = sizeof(caught) / sizeof(caught[0]) };

static struct {
	bool entered, gone;
	struct termios before;
	struct sigaction actions[CAUGHT];
	sigset_t mask; /* of before: what may come while a key is waited for */
	char bytes[64];
	size_t size;
} terminal;

static volatile sig_atomic_t ended_by, resized, stop;

static void note(int number)
{
	if (number == SIGWINCH)
		resized = 1;
	else if (number == SIGTSTP)
		stop = 1;
	else
		ended_by = number;
}

/* ---- Keys ---- */

enum segue_key segue_terminal_parse(const char *bytes, size_t size, size_t *taken)
{
	static const struct {
		const char *bytes;
		enum segue_key key;
	} known[] = {
		{"q", SEGUE_KEY_QUIT},
		{"Q", SEGUE_KEY_QUIT},
		{"\x03", SEGUE_KEY_QUIT},
		{"k", SEGUE_KEY_UP},
		{"j", SEGUE_KEY_DOWN},
		{" ", SEGUE_KEY_PAGE_DOWN},
		{"g", SEGUE_KEY_HOME},
		{"G", SEGUE_KEY_END},
		{"\x1b[A", SEGUE_KEY_UP},
		{"\x1bOA", SEGUE_KEY_UP},
		{"\x1b[B", SEGUE_KEY_DOWN},
		{"\x1bOB", SEGUE_KEY_DOWN},
		{"\x1b[5~", SEGUE_KEY_PAGE_UP},
		{"\x1b[6~", SEGUE_KEY_PAGE_DOWN},
		{"\x1b[H", SEGUE_KEY_HOME},
		{"\x1bOH", SEGUE_KEY_HOME},
		{"\x1b[1~", SEGUE_KEY_HOME},
		{"\x1b[F", SEGUE_KEY_END},
		{"\x1bOF", SEGUE_KEY_END},
		{"\x1b[4~", SEGUE_KEY_END},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		*taken = strlen(known[i].bytes);
		if (*taken <= size && memcmp(bytes, known[i].bytes, *taken) == 0)
			return known[i].key;
	}
	*taken = size > 0;
	/* Of a sequence that is not known all goes, lest its end is taken for a key. */
	if (size > 1 && bytes[0] == '\x1b' && (bytes[1] == '[' || bytes[1] == 'O'))
		for (*taken = 2; *taken < size;)
			if (bytes[(*taken)++] >= '@')
				break;
	return SEGUE_KEY_NONE;
}

/* One of those that are there. */
static enum segue_key take_key(void)
{
	enum segue_key key = SEGUE_KEY_NONE;

	while (terminal.size > 0 && key == SEGUE_KEY_NONE) {
		size_t taken;
		key = segue_terminal_parse(terminal.bytes, terminal.size, &taken);
		terminal.size -= taken;
		memmove(terminal.bytes, terminal.bytes + taken, terminal.size);
	}
	return key;
}

/* Waits until then for bytes, or a signal. */
static void look(int64_t deadline_ns)
{
	struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
	int64_t left = deadline_ns - segue_now_ns();

	left = left > 0 ? left : 0;
	const struct timespec time = {left / 1000000000, left % 1000000000};
	if (ppoll(&input, 1, &time, &terminal.mask) <= 0 || terminal.size == sizeof(terminal.bytes))
		return;
	ssize_t got = read(STDIN_FILENO, terminal.bytes + terminal.size,
		sizeof(terminal.bytes) - terminal.size);
	if (got > 0)
		terminal.size += (size_t)got;
	else if (got == 0 || (errno != EINTR && errno != EAGAIN))
		terminal.gone = true;
}

bool segue_terminal_wants_out(void)
{
	size_t taken;

	look(0);
	return ended_by || terminal.gone ||
	       segue_terminal_parse(terminal.bytes, terminal.size, &taken) == SEGUE_KEY_QUIT;
}

/* ---- In and out ---- */

static void put(const char *bytes, size_t size)
{
	while (size > 0 && !terminal.gone) {
		ssize_t done = write(STDOUT_FILENO, bytes, size);
		if (done > 0) {
			bytes += done;
			size -= (size_t)done;
		} else if (done < 0 && errno == EAGAIN) {
			struct pollfd output = {.fd = STDOUT_FILENO, .events = POLLOUT};
			poll(&output, 1, -1);
		} else if (done < 0 && errno != EINTR) {
			terminal.gone = true;
		}
	}
}

static void set_up(void)
{
	struct termios raw = terminal.before;

	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
	put(ENTER, strlen(ENTER));
}

static void take_down(void)
{
	put(LEAVE, strlen(LEAVE));
	tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal.before);
}

/* Ctrl-Z: whoever comes next finds the terminal as it was. */
static void be_stopped(void)
{
	stop = 0;
	take_down();
	raise(SIGSTOP);
	tcgetattr(STDIN_FILENO, &terminal.before);
	set_up();
	resized = 1;
}

bool segue_terminal_is_there(void)
{
	return isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1;
}

int segue_terminal_enter(void)
{
	struct sigaction action = {.sa_handler = note};
	sigset_t blocked;

	if (tcgetattr(STDIN_FILENO, &terminal.before) < 0)
		return segue_fail_errno(SEGUE_ESYSTEM, "the terminal cannot be set up");
	sigemptyset(&blocked);
	for (size_t i = 0; i < CAUGHT; i++)
		sigaddset(&blocked, caught[i]);
	sigprocmask(SIG_BLOCK, &blocked, &terminal.mask);
	for (size_t i = 0; i < CAUGHT; i++)
		sigaction(caught[i], &action, &terminal.actions[i]);
	terminal.entered = true;
	set_up();
	return 0;
}

void segue_terminal_leave(void)
{
	if (!terminal.entered)
		return;
	take_down();
	terminal.entered = false;
	for (size_t i = 0; i < CAUGHT; i++)
		sigaction(caught[i], &terminal.actions[i], NULL);
	sigprocmask(SIG_SETMASK, &terminal.mask, NULL);
	if (ended_by)
		raise(ended_by);
}

enum segue_key segue_terminal_key(int64_t deadline_ns)
{
	enum segue_key key;

	for (;;) {
		key = take_key();
		if (key == SEGUE_KEY_NONE)
			look(deadline_ns);
		if (stop)
			be_stopped();
		if (ended_by || terminal.gone)
			return SEGUE_KEY_QUIT;
		if (key != SEGUE_KEY_NONE)
			return key;
		if (resized) {
			resized = 0;
			return SEGUE_KEY_RESIZED;
		}
		if (!terminal.size && segue_now_ns() >= deadline_ns)
			return SEGUE_KEY_NONE;
	}
}

void segue_terminal_size(int *columns, int *rows)
{
	struct winsize size = {0};

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0)
		size = (struct winsize){0};
	*columns = size.ws_col ? size.ws_col : COLUMNS;
	*rows = size.ws_row ? size.ws_row : ROWS;
}

void segue_terminal_show(const char *lines, int rows)
{
	/* A line is erased before it is written: behind it, its last character would go as well. */
	static const char home[] = "\x1b[H\x1b[K", next[] = "\n\x1b[K", below[] = "\x1b[J";
	int breaks = 0;

	for (const char *at = lines; (at = strchr(at, '\n')) != NULL; at++)
		breaks++;
	char *frame = segue_cli_need(malloc(
		strlen(lines) + (size_t)breaks * sizeof(next) + sizeof(home) + sizeof(below)));
	char *to = stpcpy(frame, home);
	for (const char *at = lines; *at; at++) {
		if (*at != '\n')
			*to++ = *at;
		else if (at[1] || breaks < rows) /* at the bottom it would scroll */
			to = stpcpy(to, next);
	}
	if (breaks < rows)
		to = stpcpy(to, below);
	put(frame, (size_t)(to - frame));
	free(frame);
}
