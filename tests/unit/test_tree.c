/* Removing directories: what is exchanged meanwhile leads nowhere else. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "os/tree.h"
#include "tmpdir.h"

static struct segue_tmpdir tmp;
static int exchange_at; /* the removal before which directory and link change places; 0: none */

static const char *in(const char *name)
{
	static char path[4][SEGUE_TMPDIR_MAX];
	static unsigned next;

	return segue_tmpdir_path(&tmp, name, path[next++ % 4]);
}

static void make_file(const char *name)
{
	int fd = open(in(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	close(fd);
}

int unlinkat(int at, const char *name, int flags)
{
	int (*real)(int, const char *, int);

	*(void **)&real = dlsym(RTLD_NEXT, "unlinkat");
	if (exchange_at && --exchange_at == 0)
		renameat2(AT_FDCWD, in("old/copy"), AT_FDCWD, in("link"), RENAME_EXCHANGE);
	return real(at, name, flags);
}

static void make_tree(void)
{
	cr_assert_eq(mkdir(in("old"), 0700) | mkdir(in("old/copy"), 0700), 0);
	make_file("old/copy/a");
	make_file("old/copy/b");
	cr_assert_eq(symlink(in("victim"), in("link")), 0);
}

Test(tree, removes_what_is_in_it)
{
	segue_tmpdir_make(&tmp, "tree");
	cr_assert_eq(mkdir(in("victim"), 0700), 0);
	make_file("victim/a");
	make_tree();
	cr_assert_eq(rename(in("link"), in("old/link")), 0);
	segue_tree_remove(AT_FDCWD, in("old"));
	cr_assert_neq(access(in("old"), F_OK), 0);
	cr_assert_eq(access(in("victim/a"), F_OK), 0);
	segue_tree_remove(AT_FDCWD, in("missing"));
	segue_tmpdir_remove(&tmp);
}

Test(tree, follows_no_link_that_comes_meanwhile)
{
	segue_tmpdir_make(&tmp, "tree");
	cr_assert_eq(mkdir(in("victim"), 0700), 0);
	make_file("victim/a");
	make_file("victim/b");
	for (int at = 1; at <= 6; at++) {
		make_tree();
		exchange_at = at;
		segue_tree_remove(AT_FDCWD, in("old"));
		cr_assert_eq(exchange_at, 0, "there were not %d removals", at);
		cr_assert_eq(access(in("victim/a"), F_OK), 0, "%d", at);
		cr_assert_eq(access(in("victim/b"), F_OK), 0, "%d", at);
		segue_tree_remove(AT_FDCWD, in("old"));
		segue_tree_remove(AT_FDCWD, in("link"));
	}
	segue_tmpdir_remove(&tmp);
}
