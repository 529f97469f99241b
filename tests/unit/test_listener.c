/* The socket: what it takes the place of, what it leaves alone, when it is made anew. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/error.h"
#include "core/wait.h"
#include "session/listener.h"
#include "testserver.h"

#define SECOND INT64_C(1000000000)

static struct segue_testserver test;
static struct segue_listener *listener;
static struct sockaddr_un address;

static void start(void)
{
	segue_testserver_init(&test, "listener");
	segue_testserver_start(&test);
	address.sun_family = AF_UNIX;
	int size = snprintf(
		address.sun_path, sizeof(address.sun_path), "%.90s/segue.sock", test.store);
	cr_assert_lt((size_t)size, sizeof(address.sun_path));
	test.server.socket_path = address.sun_path;
}

static void stop(void)
{
	segue_listener_destroy(listener);
	segue_testserver_stop(&test);
	segue_testserver_finish(&test);
}

TestSuite(listener, .init = start, .fini = stop, .timeout = 60);

static bool is_there(void)
{
	return access(address.sun_path, F_OK) == 0;
}

/* A socket at the path that is another's. */
static int put_socket(int type)
{
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	cr_assert_eq(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static int try_to_connect(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

static void cannot_take_it(void)
{
	struct stat before, after;

	cr_assert_eq(lstat(address.sun_path, &before), 0);
	cr_assert_eq(segue_listener_create(&test.server, -1, &listener), SEGUE_EBUSY);
	cr_assert(strstr(segue_error_detail(), "is taken"), "%s", segue_error_detail());
	cr_assert_eq(lstat(address.sun_path, &after), 0);
	cr_assert_eq(before.st_ino, after.st_ino);
}

Test(listener, a_stale_socket_is_replaced)
{
	close(put_socket(SOCK_STREAM));
	cr_assert_eq(segue_listener_create(&test.server, -1, &listener), 0);
	int fd = try_to_connect();
	cr_assert_geq(fd, 0);
	close(fd);
	segue_listener_destroy(listener);
	listener = NULL;
	cr_assert_not(is_there());
}

Test(listener, one_that_somebody_listens_on_is_not)
{
	int fd = put_socket(SOCK_STREAM);

	cr_assert_eq(listen(fd, 1), 0);
	cannot_take_it();
	close(fd);
}

/* As of a server that is stopped: to be let in would be waited for without end. */
Test(listener, nor_one_whose_server_lets_nobody_in)
{
	int fd = put_socket(SOCK_STREAM), waiting[8];
	size_t count = 0;

	cr_assert_eq(listen(fd, 1), 0);
	while (count < 8 && (waiting[count] = try_to_connect()) >= 0)
		count++;
	cr_assert_lt(count, 8);
	cannot_take_it();
	while (count > 0)
		close(waiting[--count]);
	close(fd);
}

Test(listener, nor_one_of_another_type)
{
	int fd = put_socket(SOCK_DGRAM);

	cannot_take_it();
	close(fd);
}

Test(listener, a_socket_whose_file_is_removed_is_made_anew)
{
	cr_assert_eq(segue_listener_create(&test.server, -1, &listener), 0);
	cr_assert_eq(unlink(address.sun_path), 0);
	segue_listener_tick(listener, segue_now_ns() + SECOND);
	int fd = try_to_connect();
	cr_assert_geq(fd, 0);
	close(fd);
}

/* The directory is another's now: clients of that one would find this server. */
Test(listener, but_not_in_a_directory_that_is_another)
{
	char moved[SEGUE_TMPDIR_MAX];

	cr_assert_eq(segue_listener_create(&test.server, -1, &listener), 0);
	segue_tmpdir_path(&test.dir, "moved", moved);
	cr_assert_eq(rename(test.store, moved), 0);
	segue_listener_tick(listener, segue_now_ns() + SECOND);
	cr_assert_eq(mkdir(test.store, 0700), 0);
	segue_listener_tick(listener, segue_now_ns() + 2 * SECOND);
	cr_assert_not(is_there());
	cr_assert_eq(rmdir(test.store), 0);
	cr_assert_eq(rename(moved, test.store), 0);
	cr_assert_eq(unlink(address.sun_path), 0);
	segue_listener_tick(listener, segue_now_ns() + 3 * SECOND);
	cr_assert(is_there());
}
