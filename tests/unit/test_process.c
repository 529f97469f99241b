/* Whether a process lives: as long as any of its threads does. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "os/process.h"

static void *stay(void *arg)
{
	(void)arg;
	for (;;)
		pause();
	return NULL;
}

/* A process whose first thread ends, and the other one only when it is killed. */
static pid_t start(void)
{
	pid_t pid = fork();
	pthread_t other;

	cr_assert_geq(pid, 0);
	if (pid > 0)
		return pid;
	if (pthread_create(&other, NULL, stay, NULL) != 0)
		_exit(1);
	pthread_exit(NULL);
}

static char state_of(pid_t pid)
{
	char path[64], text[1024] = "";
	const char *at;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	cr_assert(file, "%s", path);
	cr_assert(fgets(text, sizeof(text), file), "%s", path);
	fclose(file);
	at = strrchr(text, ')');
	cr_assert(at && at[1] == ' ', "%s", text);
	return at[2];
}

Test(process, it_lives_as_long_as_any_thread, .timeout = 20)
{
	struct segue_holder holder;
	pid_t pid = start();
	siginfo_t info;

	segue_process_identify(pid, &holder);
	cr_assert_eq(segue_process_presence(&holder), SEGUE_PRESENCE_ALIVE);
	while (state_of(pid) != 'Z')
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	cr_expect_eq(segue_process_presence(&holder), SEGUE_PRESENCE_ALIVE);
	kill(pid, SIGKILL);
	cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	cr_expect_eq(state_of(pid), 'Z', "nobody has waited for it");
	cr_expect_eq(segue_process_presence(&holder), SEGUE_PRESENCE_GONE);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	cr_expect_eq(segue_process_presence(&holder), SEGUE_PRESENCE_GONE);
}

Test(process, another_of_that_number_is_another)
{
	struct segue_holder holder;

	segue_process_identify(getpid(), &holder);
	cr_assert_eq(segue_process_presence(&holder), SEGUE_PRESENCE_ALIVE);
	holder.start_time++;
	cr_expect_eq(segue_process_presence(&holder), SEGUE_PRESENCE_GONE);
	holder.start_time--;
	holder.boot_id[0] ^= 1;
	cr_expect_eq(segue_process_presence(&holder), SEGUE_PRESENCE_GONE);
	holder.boot_id[0] ^= 1;
	holder.pid_namespace++;
	cr_expect_eq(segue_process_presence(&holder), SEGUE_PRESENCE_UNKNOWN);
}
