/* The store's path, while it is open: removed, moved, replaced, back again. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store_fixture.h"

static struct segue_store *store;
static char aside[SEGUE_TMPDIR_MAX], folder[SEGUE_TMPDIR_MAX];

static void start(void)
{
	segue_tmpdir_make(&tmp, "place");
	segue_tmpdir_path(&tmp, "run", dir);
	segue_tmpdir_path(&tmp, "run/store", folder);
	segue_tmpdir_path(&tmp, "run/store/data.mdb", file);
	segue_tmpdir_path(&tmp, "aside", aside);
	store = open_store(SEGUE_STORE_SERVE);
	assert_ok(put_text(store, "before", "kept"));
	assert_ok(segue_store_look(store));
}

static void stop(void)
{
	segue_store_close(store);
	segue_tmpdir_remove(&tmp);
}

TestSuite(store_place, .init = start, .fini = stop, .timeout = 60);

static void move(const char *from, const char *to)
{
	cr_assert_eq(rename(from, to), 0, "%s to %s", from, to);
}

/* Nothing can be written, and all that was can be read. */
static void expect_moved(const char *text)
{
	uint64_t written = stats_of(store).transactions;

	assert_fails(segue_store_look(store), SEGUE_EMOVED, text);
	assert_fails(put_text(store, "meanwhile", "lost"), SEGUE_EMOVED, text);
	cr_assert_eq(get_code(store, "meanwhile"), SEGUE_ENOTFOUND);
	cr_assert_eq(stats_of(store).transactions, written);
	expect_text(store, "before", "kept");
}

static void expect_well(void)
{
	assert_ok(segue_store_look(store));
	assert_ok(put_text(store, "after", "kept"));
	expect_text(store, "after", "kept");
}

/* What is not there, or is something else, or is back. */
static void move_away_and_back(const char *path, const char *name)
{
	char text[2 * SEGUE_TMPDIR_MAX + 64];

	snprintf(text, sizeof(text), "%s%s was moved to %s", dir, name, aside);
	move(path, aside);
	expect_moved(text);
	move(aside, path);
	expect_well();
}

Test(store_place, its_directory_was_moved)
{
	move_away_and_back(dir, "");
}

Test(store_place, its_inner_directory_was_moved)
{
	move_away_and_back(folder, "/store");
}

Test(store_place, its_data_file_was_moved)
{
	move_away_and_back(file, "/store/data.mdb");
}

Test(store_place, a_link_is_a_way_to_the_directory)
{
	move(dir, aside);
	cr_assert_eq(symlink(aside, dir), 0);
	expect_well();
	unlink(dir);
	move(aside, dir);
}

Test(store_place, a_link_is_no_way_to_what_lies_in_it)
{
	move(folder, aside);
	cr_assert_eq(symlink(aside, folder), 0);
	expect_moved("and something else lies in its place");
}

Test(store_place, another_directory_lies_in_its_place)
{
	move(dir, aside);
	cr_assert_eq(mkdir(dir, 0700), 0);
	expect_moved("and something else lies in its place");
	cr_assert_eq(rmdir(dir), 0);
	move(aside, dir);
	expect_well();
}

/* As 'cp -al' makes it: the very file, but not the directory whose lock is held. */
Test(store_place, the_same_file_in_another_directory_is_not_the_store)
{
	char other[SEGUE_TMPDIR_MAX + 32];

	move(dir, aside);
	cr_assert_eq(mkdir(dir, 0700), 0);
	cr_assert_eq(mkdir(folder, 0700), 0);
	snprintf(other, sizeof(other), "%s/store/data.mdb", aside);
	cr_assert_eq(link(other, file), 0);
	expect_moved("was moved to");
}

Test(store_place, its_data_file_was_removed)
{
	cr_assert_eq(unlink(file), 0);
	expect_moved("/store/data.mdb was removed");
}

Test(store_place, what_the_message_says_of_a_removed_file_saves_it)
{
	uint8_t *bytes;
	char path[64];
	const char *at;

	cr_assert_eq(unlink(file), 0);
	assert_fails(segue_store_look(store), SEGUE_EMOVED, "was removed");
	at = strstr(segue_error_detail(), "cp /proc/");
	cr_assert_eq(sscanf(at, "cp %60s", path), 1);
	size_t size = read_file(path, &bytes);
	segue_store_close(store);
	write_file(file, bytes, size);
	free(bytes);
	store = open_store(SEGUE_STORE_SERVE);
	expect_text(store, "before", "kept");
	expect_well();
}

Test(store_place, its_data_file_was_replaced)
{
	uint8_t *bytes;
	size_t size = read_file(file, &bytes);

	cr_assert_eq(unlink(file), 0);
	write_file(file, bytes, size);
	free(bytes);
	expect_moved("was removed, and something else lies in its place");
}

Test(store_place, all_was_removed)
{
	char command[SEGUE_TMPDIR_MAX + 16];

	snprintf(command, sizeof(command), "rm -r '%s'", dir);
	cr_assert_eq(system(command), 0);
	expect_moved("was removed: nothing leads to what this server would write");
	cr_assert_eq(access(dir, F_OK), -1);
	segue_store_close(store);
	store = NULL;
	cr_assert_eq(access(dir, F_OK), -1, "its end made the directory again");
}

/* An end never touches what lies in its place. */
Test(store_place, the_end_leaves_another_store_alone)
{
	uint8_t *before, *after;
	struct segue_store *old = store;
	size_t size, size_after;
	char pid[SEGUE_TMPDIR_MAX + 16];

	move(dir, aside);
	cr_assert_eq(mkdir(dir, 0700), 0);
	cr_assert_eq(mkdir(folder, 0700), 0);
	write_file(file, "another", 7);
	snprintf(pid, sizeof(pid), "%s/server.pid", dir);
	write_file(pid, "1\n", 2);
	size = read_file(file, &before);
	store = NULL;
	segue_store_close(old);
	size_after = read_file(file, &after);
	cr_assert(size == size_after && memcmp(before, after, size) == 0);
	cr_assert_eq(access(pid, F_OK), 0);
	free(before);
	free(after);
}

/* Named by others by way of a link, that leads elsewhere now. */
Test(store_place, the_name_that_others_have_is_what_counts)
{
	char named[SEGUE_TMPDIR_MAX];
	const struct segue_store_serving serving = {.named = named};

	segue_store_close(store);
	segue_tmpdir_path(&tmp, "named", named);
	cr_assert_eq(symlink(dir, named), 0);
	assert_ok(segue_store_serve(dir, &serving, &store));
	expect_well();
	cr_assert_eq(unlink(named), 0);
	expect_moved("was moved to");
	cr_assert_eq(symlink("/nowhere", named), 0);
	expect_moved("was moved to");
	cr_assert_eq(unlink(named), 0);
	cr_assert_eq(symlink(dir, named), 0);
	expect_well();
}

/* The lock's file is for readers of other processes; the data have a path without it. */
Test(store_place, without_its_lock_file_all_goes_on)
{
	char lock[SEGUE_TMPDIR_MAX + 32];

	snprintf(lock, sizeof(lock), "%s/store/lock.mdb", dir);
	cr_assert_eq(unlink(lock), 0);
	expect_well();
}
