/*
 * Libraries put before all others (LD_PRELOAD), also where their path has a space or a colon, at
 * which the loader would part it.
 */
#ifndef SEGUE_TEST_PRELOAD_H
#define SEGUE_TEST_PRELOAD_H

/*
 * A value for LD_PRELOAD that means `library`, an absolute path: that itself or, where it has a
 * space or a colon, a link in /tmp, removed when this process exits. One library a process. Prints
 * and aborts on a fault of the machine.
 */
const char *segue_preload_path(const char *library);

#endif
