// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory that was pinned before exec() is taken off the new program's count of locked pages.
 *
 * vfio_lock_acct() used the mm that the task has now; the pages were counted for the one it had.
 */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <linux/vfio.h>

#define LENGTH (4UL << 20)
#define CONTAINER 100 /* the file that outlives exec() */

/* VmLck in kB */
static unsigned long long locked(void)
{
	unsigned long long value = 0;
	char line[200];
	FILE *status = fopen("/proc/self/status", "r");

	while (fgets(line, sizeof(line), status))
		sscanf(line, "VmLck: %llu", &value);
	fclose(status);
	return value;
}

static int after(void)
{
	struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof(unmap), .size = LENGTH };
	unsigned long long kb;

	if (ioctl(CONTAINER, VFIO_IOMMU_UNMAP_DMA, &unmap) || unmap.size != LENGTH)
		err(2, "VFIO_IOMMU_UNMAP_DMA");
	kb = locked();
	printf("after exec() and unmap: %llu kB locked\n", kb);
	return kb != 0;
}

int main(int argc, char **argv)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.size = LENGTH,
	};
	const char *path = getenv("VFIO_LAB_GROUP");
	int container, group;
	void *memory;

	if (argc > 1)
		return after();
	container = open("/dev/vfio/vfio", O_RDWR);
	if (!path || container < 0 || !ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU)) {
		printf("1..0 # SKIP the kernel has no groups, or no type1\n");
		return 0;
	}
	group = open(path, O_RDWR);
	if (group < 0 || ioctl(group, VFIO_GROUP_SET_CONTAINER, &container))
		err(2, "%s", path);
	if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		err(2, "VFIO_SET_IOMMU");
	memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	map.vaddr = (uintptr_t)memory;
	if (memory == MAP_FAILED || ioctl(container, VFIO_IOMMU_MAP_DMA, &map))
		err(2, "VFIO_IOMMU_MAP_DMA");
	printf("mapped: %llu kB locked\n", locked());
	fflush(stdout);
	if (dup2(container, CONTAINER) < 0)
		err(2, "dup2");
	execl("/proc/self/exe", argv[0], "after", NULL);
	err(2, "exec");
}
