// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device of a noiommu group that an iommufd holds: it is closed, but was never opened.
 *
 * vfio_df_group_open() returned before vfio_df_open(), and vfio_df_close() counted it down all
 * the same: vfio_assert_device_open() warns, and the count is that of 4 billion users.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/vfio.h>

static void put(const char *path, const char *text)
{
	int file = open(path, O_WRONLY);

	if (file < 0 || write(file, text, strlen(text)) < 0)
		err(2, "%s: %s", path, text);
	close(file);
}

/* The group of the device, /dev/vfio/noiommu-N. */
static int open_group(const char *bdf)
{
	char path[PATH_MAX], target[PATH_MAX] = "";

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", bdf);
	if (readlink(path, target, sizeof(target) - 1) < 0)
		err(2, "%s", path);
	snprintf(path, sizeof(path), "/dev/vfio/noiommu-%s", strrchr(target, '/') + 1);
	return open(path, O_RDWR);
}

int main(void)
{
	const char *bdf = getenv("VFIO_LAB_BDF");
	char path[PATH_MAX];
	int iommufd = open("/dev/iommu", O_RDWR), group, device;

	if (iommufd < 0) {
		printf("1..0 # SKIP the kernel has no iommufd\n");
		return 0;
	}
	put("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "1");
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver_override", bdf);
	put(path, "vfio-pci");
	put("/sys/bus/pci/drivers/vfio-pci/bind", bdf);
	group = open_group(bdf);
	if (group < 0)
		err(2, "noiommu group of %s", bdf);
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &iommufd))
		err(2, "VFIO_GROUP_SET_CONTAINER");
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bdf);
	if (device < 0)
		err(2, "VFIO_GROUP_GET_DEVICE_FD");
	printf("opened, and closed\n");
	close(device);
	close(group);
	put("/sys/bus/pci/drivers/vfio-pci/unbind", bdf);
	put(path, "\n");
	return 0;
}
