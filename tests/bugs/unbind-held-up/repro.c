// SPDX-License-Identifier: GPL-2.0-only
/*
 * A driver that is being unbound waits for ever: its device is handed out again meanwhile.
 *
 * vfio_unregister_group_dev() took the device off its group only after all who use it had gone,
 * so VFIO_GROUP_GET_DEVICE_FD gave it to the next one.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/vfio.h>

#define DRIVER "/sys/bus/pci/drivers/vfio-pci/"
#define WAIT 3 /* seconds that an unbind may take whose device nobody uses */

static void put(const char *path, const char *text)
{
	int file = open(path, O_WRONLY);

	if (file < 0 || write(file, text, strlen(text)) < 0)
		err(2, "%s: %s", path, text);
	close(file);
}

static int ended(pid_t child, int tenths)
{
	for (; tenths >= 0; tenths--) {
		if (waitpid(child, NULL, WNOHANG) == child)
			return 1;
		usleep(100000);
	}
	return 0;
}

int main(void)
{
	const char *bdf = getenv("VFIO_LAB_BDF"), *path = getenv("VFIO_LAB_GROUP");
	int container = open("/dev/vfio/vfio", O_RDWR), group, first, second, done;
	pid_t child;

	if (!path || container < 0) {
		printf("1..0 # SKIP the kernel has no groups\n");
		return 0;
	}
	group = open(path, O_RDWR);
	if (group < 0 || ioctl(group, VFIO_GROUP_SET_CONTAINER, &container))
		err(2, "%s", path);
	if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU))
		err(2, "VFIO_SET_IOMMU");
	first = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bdf);
	if (first < 0)
		err(2, "VFIO_GROUP_GET_DEVICE_FD");
	child = fork();
	if (!child) {
		close(first); /* so that it is not this process who keeps it */
		put(DRIVER "unbind", bdf);
		_exit(0);
	}
	if (ended(child, 10))
		errx(2, "the driver was unbound though the device is in use");
	second = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bdf);
	printf("VFIO_GROUP_GET_DEVICE_FD of a device that is going: %s\n",
	       second < 0 ? strerror(errno) : "success");
	close(first);
	done = ended(child, 10 * WAIT);
	printf("%d s after the first user has gone the driver is %s\n", done ? 0 : WAIT,
	       done ? "unbound" : "still being unbound");
	if (second >= 0)
		close(second);
	if (!done && !ended(child, 10 * WAIT))
		errx(3, "and it is when the second has gone, too");
	close(group);
	close(container);
	put(DRIVER "bind", bdf);
	return !done;
}
