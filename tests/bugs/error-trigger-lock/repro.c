// SPDX-License-Identifier: GPL-2.0-only
/*
 * Three locks in a circle, of which lockdep tells when each step was taken once:
 *
 *   VFIO_DEVICE_SET_IRQS        igate, then memory_lock
 *   VFIO_DEVICE_PCI_HOT_RESET   memory_lock, then pci_bus_sem
 *   an error of the link (AER)  pci_bus_sem, then igate, for who wants to be told
 *
 * The error is the kernel's own injector's: CONFIG_PCIEAER_INJECT.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>

/* struct aer_error_inj of drivers/pci/pcie/aer_inject.c, which no header has. */
struct error {
	uint8_t bus, device, function;
	uint32_t uncorrectable, correctable;
	uint32_t header_log[4];
	uint32_t domain;
};

static int group, device;

static void set_irq(uint32_t index, int eventfd)
{
	struct {
		struct vfio_irq_set head;
		int32_t eventfd;
	} set = {
		.head = {
			.argsz = sizeof(set),
			.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
			.index = index,
			.count = 1,
		},
	};

	memcpy(set.head.data, &eventfd, sizeof(eventfd));
	if (ioctl(device, VFIO_DEVICE_SET_IRQS, &set))
		err(2, "VFIO_DEVICE_SET_IRQS %u", index);
}

static void hot_reset(void)
{
	struct {
		struct vfio_pci_hot_reset head;
		int32_t group;
	} reset = { .head = { .argsz = sizeof(reset), .count = 1 } };

	memcpy(reset.head.group_fds, &group, sizeof(group));
	if (ioctl(device, VFIO_DEVICE_PCI_HOT_RESET, &reset))
		err(2, "VFIO_DEVICE_PCI_HOT_RESET");
}

static void inject(const char *bdf)
{
	unsigned int domain, bus, slot, function;
	struct error error = { .uncorrectable = PCI_ERR_UNC_COMP_ABORT };
	int file = open("/dev/aer_inject", O_WRONLY);

	sscanf(bdf, "%x:%x:%x.%x", &domain, &bus, &slot, &function);
	error.domain = domain;
	error.bus = bus;
	error.device = slot;
	error.function = function;
	if (file < 0 || write(file, &error, sizeof(error)) != sizeof(error))
		err(2, "/dev/aer_inject");
	close(file);
}

int main(void)
{
	const char *bdf = getenv("VFIO_LAB_BDF"), *path = getenv("VFIO_LAB_GROUP");
	int container = open("/dev/vfio/vfio", O_RDWR);
	struct pollfd error = { .fd = eventfd(0, 0), .events = POLLIN };

	if (!path || container < 0) {
		printf("1..0 # SKIP the kernel has no groups\n");
		return 0;
	}
	if (access("/dev/aer_inject", W_OK)) {
		printf("1..0 # SKIP the kernel has no CONFIG_PCIEAER_INJECT\n");
		return 0;
	}
	group = open(path, O_RDWR);
	if (group < 0 || ioctl(group, VFIO_GROUP_SET_CONTAINER, &container))
		err(2, "%s", path);
	if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU))
		err(2, "VFIO_SET_IOMMU");
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bdf);
	if (device < 0)
		err(2, "VFIO_GROUP_GET_DEVICE_FD %s", bdf);

	set_irq(VFIO_PCI_MSIX_IRQ_INDEX, eventfd(0, 0));
	printf("igate, then memory_lock\n");
	hot_reset();
	printf("memory_lock, then pci_bus_sem\n");
	fflush(stdout);
	set_irq(VFIO_PCI_ERR_IRQ_INDEX, error.fd);
	inject(bdf);
	if (poll(&error, 1, 10000) != 1)
		errx(2, "nobody was told of the error");
	printf("pci_bus_sem, then igate\n");
	return 0;
}
