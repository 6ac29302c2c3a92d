// SPDX-License-Identifier: GPL-2.0-only
/*
 * Virtual functions are opened one after the other, though nothing is common to them.
 *
 * vfio_pci_core_register_device() gave those of a bus one dev_set, whose lock is held while each of
 * them is reset: 100 ms. It is for hot reset, and a virtual function has none.
 */
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <linux/vfio.h>

#define COUNT 4
#define ROUNDS 3
#define TOKEN "00112233-4455-6677-8899-aabbccddeeff"

static int container, groups[COUNT];
static char names[COUNT][80]; /* BDF, and the token */

static void put(const char *path, const char *text)
{
	int file = open(path, O_WRONLY);

	if (file < 0 || write(file, text, strlen(text)) < 0)
		err(2, "%s: %s", path, text);
	close(file);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

/* The last part of where a link goes to. */
static const char *target(const char *link)
{
	static char path[PATH_MAX];
	ssize_t length = readlink(link, path, sizeof(path) - 1);

	if (length < 0)
		err(2, "%s", link);
	path[length] = 0;
	return strrchr(path, '/') + 1;
}

static int open_group(const char *bdf)
{
	char path[PATH_MAX];
	int group;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", bdf);
	snprintf(path, sizeof(path), "/dev/vfio/%s", target(path));
	for (int i = 0; (group = open(path, O_RDWR)) < 0 && i < 50; i++)
		usleep(100000); /* the node comes a little later than the device */
	if (group < 0 || ioctl(group, VFIO_GROUP_SET_CONTAINER, &container))
		err(2, "%s", path);
	return group;
}

static void set_token(int device)
{
	char buffer[sizeof(struct vfio_device_feature) + 16];
	struct vfio_device_feature *feature = (void *)buffer;

	feature->argsz = sizeof(buffer);
	feature->flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_PCI_VF_TOKEN;
	for (int i = 0; i < 16; i++)
		feature->data[i] = i * 0x11;
	if (ioctl(device, VFIO_DEVICE_FEATURE, feature))
		err(2, "VFIO_DEVICE_FEATURE_PCI_VF_TOKEN");
}

static void *open_one(void *index)
{
	long i = (long)index;
	int device = ioctl(groups[i], VFIO_GROUP_GET_DEVICE_FD, names[i]);

	if (device < 0)
		err(2, "VFIO_GROUP_GET_DEVICE_FD %s", names[i]);
	return (void *)(long)device;
}

/* Seconds that it takes to open so many at once; they are closed again. */
static double open_at_once(int count)
{
	pthread_t threads[COUNT];
	void *devices[COUNT];
	double start = now(), seconds;

	for (long i = 0; i < count; i++)
		if (pthread_create(&threads[i], NULL, open_one, (void *)i))
			errx(2, "pthread_create");
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], &devices[i]);
	seconds = now() - start;
	for (int i = 0; i < count; i++)
		close((long)devices[i]);
	return seconds;
}

int main(void)
{
	const char *bdf = getenv("VFIO_LAB_BDF");
	char vfs[PATH_MAX], link[PATH_MAX + 20];
	double one = 1e9, all = 1e9, seconds;
	int group, device;

	container = open("/dev/vfio/vfio", O_RDWR);
	if (container < 0 || !getenv("VFIO_LAB_GROUP")) {
		printf("1..0 # SKIP the kernel has no groups\n");
		return 0;
	}
	group = open_group(bdf);
	if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU))
		err(2, "VFIO_SET_IOMMU");
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bdf);
	if (device < 0)
		err(2, "VFIO_GROUP_GET_DEVICE_FD %s", bdf);
	set_token(device);
	put("/sys/module/vfio_pci/parameters/enable_sriov", "1");
	snprintf(vfs, sizeof(vfs), "/sys/bus/pci/devices/%s/sriov_numvfs", bdf);
	put(vfs, "4");
	for (int i = 0; i < COUNT; i++) {
		snprintf(link, sizeof(link), "/sys/bus/pci/devices/%s/virtfn%d", bdf, i);
		snprintf(names[i], sizeof(names[i]), "%s", target(link));
		groups[i] = open_group(names[i]);
		strcat(names[i], " vf_token=" TOKEN);
	}
	for (int i = 0; i < ROUNDS; i++) {
		seconds = open_at_once(1);
		one = seconds < one ? seconds : one;
		seconds = open_at_once(COUNT);
		all = seconds < all ? seconds : all;
	}
	printf("one opens in %.0f ms, %d at once in %.0f ms\n", one * 1e3, COUNT, all * 1e3);
	for (int i = 0; i < COUNT; i++)
		close(groups[i]);
	put(vfs, "0");
	return all > one * (COUNT + 1) / 2;
}
