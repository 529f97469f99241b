/* Reading traces, and putting marks into them. */
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void die(const char *what, const char *path)
{
	fprintf(stderr, "trace: %s %s: %s\n", what, path, strerror(errno));
	abort();
}

int trace_open(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (fd < 0)
		die("open", path);
	return fd;
}

void trace_mark(int fd, enum trace_mark mark, uint64_t n, uint64_t of)
{
	const struct trace_event event = {
		.size = sizeof(event), .kind = TRACE_MARK, .file = mark, .other = n, .offset = of};

	if (write(fd, &event, sizeof(event)) != sizeof(event))
		die("write", "a mark");
}

void trace_load(struct trace *trace, const char *path)
{
	struct stat status;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &status) < 0)
		die("open", path);
	trace->size = (size_t)status.st_size;
	trace->bytes = malloc(trace->size + 1);
	for (size_t done = 0; done < trace->size;) {
		ssize_t got = trace->bytes ? read(fd, trace->bytes + done, trace->size - done) : -1;
		if (got <= 0)
			die("read", path);
		done += (size_t)got;
	}
	close(fd);
}

const struct trace_event *trace_next(const struct trace *trace, const struct trace_event *event)
{
	const unsigned char *at = event ? (const unsigned char *)event + event->size : trace->bytes;
	const struct trace_event *next = (const void *)at;
	size_t left = trace->size - (size_t)(at - trace->bytes);

	if (left == 0)
		return NULL;
	if (left < sizeof(*next) || next->size < sizeof(*next) || next->size > left)
		die("event in", "a trace that is cut short");
	return next;
}
