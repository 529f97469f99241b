/* Libraries put before all others: preload.h has the contract. */
#include "preload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char directory[] = "/tmp/preload-XXXXXX";
static char link_path[sizeof(directory) + 8];
static pid_t owner;

static void fail(const char *what)
{
	perror(what);
	abort();
}

static void remove_link(void)
{
	if (getpid() != owner)
		return;
	unlink(link_path);
	rmdir(directory);
}

const char *segue_preload_path(const char *library)
{
	if (!strpbrk(library, " :"))
		return library;
	if (owner)
		return link_path;
	if (!mkdtemp(directory))
		fail(directory);
	snprintf(link_path, sizeof(link_path), "%s/first", directory);
	owner = getpid();
	atexit(remove_link);
	if (symlink(library, link_path) < 0)
		fail(link_path);
	return link_path;
}
