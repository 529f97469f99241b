/*
 * The guard: files beneath roots, for readers of other users; accounts, and what is done on them.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "guard/guard.h"
#include "guard/roots.h"
#include "testserver.h"
#include "tfwrite.h"
#include "tmpdir.h"

/* Users and groups that nobody has. */
enum { STRANGER = 54321, THEIR_GROUP = 54322 };

static struct segue_tmpdir dir;
static struct segue_roots *roots;
static char path[SEGUE_TMPDIR_MAX];

static const char *at(const char *name)
{
	return segue_tmpdir_path(&dir, name, path);
}

static void make(const char *name, mode_t mode)
{
	segue_tfwrite_file(at(name), "x", 1);
	cr_assert_eq(chmod(path, mode), 0);
}

static void start(void)
{
	char root[SEGUE_TMPDIR_MAX];
	char *list[] = {root};

	segue_tmpdir_make(&dir, "roots");
	segue_tmpdir_path(&dir, "root", root);
	cr_assert_eq(mkdir(root, 0755), 0);
	cr_assert_eq(chmod(root, 0755), 0);
	cr_assert_eq(mkdir(at("root/in"), 0755), 0);
	cr_assert_eq(chmod(path, 0755), 0);
	make("outside", 0644);
	cr_assert_eq(segue_roots_create(list, 1, &roots), 0);
}

static void stop(void)
{
	segue_roots_destroy(roots);
	segue_tmpdir_remove(&dir);
}

TestSuite(roots, .init = start, .fini = stop, .timeout = 20);

static gid_t groups[] = {THEIR_GROUP};

/* Opens as one of these, and closes: 0 or the code. */
static int open_as(uid_t uid, gid_t gid, const char *name)
{
	const struct segue_reader reader = {
		.uid = uid, .gid = gid, .groups = groups, .group_count = 1};
	const struct segue_opener opener = {.roots = roots, .reader = &reader};
	struct stat info;

	int fd = segue_opener_open(&opener, at(name), &info);
	if (fd < 0)
		return fd;
	cr_assert(S_ISREG(info.st_mode));
	close(fd);
	return 0;
}

static int open_as_ourselves(const char *name)
{
	return open_as(geteuid(), getegid(), name);
}

static int open_as_stranger(const char *name)
{
	return open_as(STRANGER, STRANGER, name);
}

#define refused(call, why)                                                                         \
	do {                                                                                       \
		cr_assert_eq(call, SEGUE_ESOURCE);                                                 \
		cr_assert(strstr(segue_error_detail(), why), "%s", segue_error_detail());          \
	} while (0)

/* ---- Places ---- */

Test(roots, files_beneath_a_root_are_opened)
{
	make("root/in/file", 0600);
	cr_assert_eq(open_as_ourselves("root/in/file"), 0);
	cr_assert_eq(open_as_ourselves("root/./in//file"), 0);
}

Test(roots, others_are_not)
{
	refused(open_as_ourselves("outside"), "is not beneath a directory");
	refused(open_as_ourselves("root/../outside"), "is not beneath a directory");
	refused(open_as_ourselves("root/in/../../outside"), "is not beneath a directory");
	cr_assert_eq(mkdir(at("root2"), 0755), 0);
	make("root2/file", 0644);
	refused(open_as_ourselves("root2/file"), "is not beneath a directory");
	refused(open_as_ourselves("root/in/nothing"), "cannot be opened");
}

Test(roots, links_are_not_followed)
{
	make("root/in/file", 0644);
	char target[SEGUE_TMPDIR_MAX];
	segue_tmpdir_path(&dir, "outside", target);
	cr_assert_eq(symlink(target, at("root/link")), 0);
	cr_assert_eq(symlink("in", at("root/way")), 0);
	refused(open_as_ourselves("root/link"), "a symbolic link is on the way");
	refused(open_as_ourselves("root/way/file"), "a symbolic link is on the way");
}

Test(roots, only_plain_files_are)
{
	cr_assert_eq(mkfifo(at("root/fifo"), 0644), 0);
	refused(open_as_ourselves("root/fifo"), "is not a plain file");
	refused(open_as_ourselves("root/in"), "is a directory");
}

Test(roots, a_root_is_absolute_and_there)
{
	struct segue_roots *none;
	char relative[] = "root", missing[SEGUE_TMPDIR_MAX];
	char *lists[] = {relative, missing};

	segue_tmpdir_path(&dir, "missing", missing);
	cr_assert_eq(segue_roots_create(&lists[0], 1, &none), SEGUE_EINVAL);
	cr_assert_eq(segue_roots_create(&lists[1], 1, &none), SEGUE_EINVAL);
}

/* ---- Rights ---- */

Test(roots, a_stranger_reads_what_all_may)
{
	make("root/in/all", 0644);
	make("root/in/ours", 0640);
	cr_assert_eq(open_as_stranger("root/in/all"), 0);
	refused(open_as_stranger("root/in/ours"), "cannot be read by uid 54321");
	cr_assert_eq(open_as_ourselves("root/in/ours"), 0);
}

Test(roots, the_first_class_that_fits_counts)
{
	make("root/in/file", 0604);
	gid_t gid = getegid();
	refused(open_as(STRANGER, gid, "root/in/file"), "cannot be read");
	cr_assert_eq(open_as_stranger("root/in/file"), 0);
	make("root/in/file", 0040);
	cr_assert_eq(open_as(STRANGER, gid, "root/in/file"), 0);
}

Test(roots, supplementary_groups_count)
{
	groups[0] = getegid();
	make("root/in/file", 0640);
	cr_assert_eq(open_as_stranger("root/in/file"), 0);
	groups[0] = THEIR_GROUP;
	refused(open_as_stranger("root/in/file"), "cannot be read");
}

Test(roots, directories_on_the_way_must_be_searchable)
{
	make("root/in/file", 0644);
	cr_assert_eq(chmod(at("root/in"), 0744), 0);
	refused(open_as_stranger("root/in/file"), "cannot be read");
	cr_assert_eq(chmod(at("root/in"), 0711), 0);
	cr_assert_eq(open_as_stranger("root/in/file"), 0);
}

Test(roots, a_directory_is_listed_for_who_may_read_it)
{
	const struct segue_reader reader = {.uid = STRANGER, .gid = STRANGER};
	const struct segue_opener opener = {.roots = roots, .reader = &reader};

	cr_assert_eq(chmod(at("root/in"), 0711), 0);
	cr_assert_null(segue_opener_list(&opener, at("root/in")));
	cr_assert_eq(errno, EACCES);
	cr_assert_eq(segue_opener_exists(&opener, at("root/in/nothing")), 0);
	cr_assert_eq(segue_opener_exists(&opener, at("root/in")), 1);
	cr_assert_eq(segue_opener_exists(&opener, at("outside")), SEGUE_ESOURCE);
}

Test(roots, without_roots_all_is_read)
{
	const struct segue_opener opener = {0};
	struct stat info;

	int fd = segue_opener_open(&opener, at("outside"), &info);
	cr_assert_geq(fd, 0);
	close(fd);
}

/* ---- Accounts ---- */

static struct segue_testserver test;

static struct segue_account *admit(void)
{
	struct segue_account *account = NULL;
	int ends[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	cr_assert_eq(segue_guard_admit(test.server.guard, ends[0], &account), 0);
	close(ends[0]);
	close(ends[1]);
	return account;
}

static void start_server(void)
{
	segue_testserver_init(&test, "guard");
	segue_testserver_start(&test);
}

static void stop_server(void)
{
	segue_testserver_stop(&test);
	segue_testserver_finish(&test);
}

TestSuite(guard, .init = start_server, .fini = stop_server, .timeout = 20);

static void count_users(void *arg, uid_t uid, const uint64_t taken[SEGUE_LIMIT_COUNT])
{
	(void)taken;
	cr_assert_eq(uid, geteuid());
	++*(unsigned *)arg;
}

Test(guard, connections_of_a_user_pay_together)
{
	struct segue_account *one = admit(), *two = admit();
	unsigned users = 0;

	segue_guard_visit(test.server.guard, count_users, &users);
	cr_assert_eq(users, 1);
	test.rules.limits.value[SEGUE_LIMIT_THREADS] = 10;
	cr_assert_eq(segue_account_take(one, SEGUE_LIMIT_THREADS, 7), 0);
	cr_assert_eq(segue_account_take(two, SEGUE_LIMIT_THREADS, 4), SEGUE_ELIMIT);
	cr_assert(strstr(segue_error_detail(), "threads of uid "));
	cr_assert_eq(segue_account_take(two, SEGUE_LIMIT_THREADS, 3), 0);
	segue_account_give(one, SEGUE_LIMIT_THREADS, 7);
	cr_assert_eq(segue_account_take(two, SEGUE_LIMIT_THREADS, 7), 0);
	segue_account_give(two, SEGUE_LIMIT_THREADS, 10);
	segue_account_release(one);
	segue_account_release(two);
	users = 0;
	segue_guard_visit(test.server.guard, count_users, &users);
	cr_assert_eq(users, 0);
}

Test(guard, an_account_is_there_as_long_as_it_is_held)
{
	struct segue_account *account = admit();

	cr_assert_eq(segue_account_hold(account), account);
	segue_account_release(account);
	cr_assert_eq(segue_account_uid(account), geteuid());
	cr_assert(segue_account_reads_as(account, account));
	segue_account_release(account);
	segue_account_release(NULL);
}

static pid_t worked_on; /* the thread */
static bool done;

static int work(struct segue_task *task)
{
	(void)task;
	worked_on = gettid();
	return segue_fail(SEGUE_EDATA, "said on another thread");
}

static void note_done(struct segue_task *task)
{
	cr_assert_eq(segue_outcome_give(&task->outcome), SEGUE_EDATA);
	cr_assert_str_eq(segue_error_detail(), "said on another thread");
	done = true;
}

static bool is_done(void *arg)
{
	(void)arg;
	return done;
}

Test(guard, a_task_is_done_on_another_thread_and_told_on_this_one)
{
	struct segue_task task = {.work = work, .done = note_done};
	struct segue_account *account = admit();

	segue_fail(SEGUE_EINVAL, "of this thread");
	cr_assert_eq(segue_account_run(account, &task, false), 0);
	cr_assert_eq(segue_loop_awaited(test.server.loop), 1);
	cr_assert(segue_testserver_run(&test, is_done, NULL));
	cr_assert_eq(segue_loop_awaited(test.server.loop), 0);
	cr_assert_neq(worked_on, gettid());
	segue_account_release(account);
}

static int wait_long(struct segue_task *task)
{
	int fd = *(int *)(task + 1);
	char byte;

	return read(fd, &byte, 1) == 1 ? 0 : SEGUE_ESYSTEM;
}

static void note_nothing(struct segue_task *task)
{
	(void)task;
}

Test(guard, what_lasts_for_minutes_holds_up_no_other)
{
	struct {
		struct segue_task task;
		int fd;
	} patient[3];
	struct segue_task task = {.work = work, .done = note_done};
	struct segue_account *account = admit();
	int ends[2];

	cr_assert_eq(pipe(ends), 0);
	for (size_t i = 0; i < 3; i++) {
		patient[i].task = (struct segue_task){.work = wait_long, .done = note_nothing};
		patient[i].fd = ends[0];
		cr_assert_eq(segue_account_run(account, &patient[i].task, true), 0);
	}
	cr_assert_eq(segue_account_run(account, &task, false), 0);
	cr_assert(segue_testserver_run(&test, is_done, NULL));
	cr_assert_eq(segue_loop_awaited(test.server.loop), 3);
	cr_assert_eq(write(ends[1], "abc", 3), 3);
	segue_testserver_settle(&test);
	segue_account_release(account);
}

Test(guard, once_it_is_closed_no_task_is_begun)
{
	struct segue_task task = {.work = work, .done = note_done};
	struct segue_account *account = admit();

	segue_guard_close(test.server.guard);
	cr_assert_eq(segue_account_run(account, &task, false), SEGUE_EGONE);
	cr_assert_eq(segue_loop_awaited(test.server.loop), 0);
	segue_account_release(account);
}

Test(guard, a_socket_is_opened_for_one_group_or_for_all)
{
	gid_t group = getegid();
	uid_t user = geteuid();
	struct stat info;

	dir = test.dir;
	make("socket", 0600);
	cr_assert_eq(segue_guard_open_socket(test.server.guard, path), 0);
	cr_assert(stat(path, &info) == 0 && (info.st_mode & 0777) == 0600);
	test.rules.groups = &group;
	test.rules.group_count = 1;
	cr_assert_eq(segue_guard_open_socket(test.server.guard, path), 0);
	cr_assert(stat(path, &info) == 0 && (info.st_mode & 0777) == 0660);
	test.rules.users = &user;
	test.rules.user_count = 1;
	cr_assert_eq(segue_guard_open_socket(test.server.guard, path), 0);
	cr_assert(stat(path, &info) == 0 && (info.st_mode & 0777) == 0666);
}
