"""Coarse groups of ImageNet's 1,000 classes, so that the probability that similar classes share can be stated.

The groups are chosen by hand, along WordNet's larger categories and what people call things. Class indices are those of
ILSVRC 2012 (Russakovsky et al. 2015, arXiv:1409.0575), in the order of its synsets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from timm.data.imagenet_info import ImageNetInfo

ANIMALS = "animal"
GROUPS = {  # name -> larger group, if there is one, and ranges of class indices
    "fish": (ANIMALS, "0-6 389-397"),
    "bird": (ANIMALS, "7-24 80-100 127-146"),
    "amphibian": (ANIMALS, "25-32"),
    "reptile": (ANIMALS, "33-68"),
    "spider or scorpion": (ANIMALS, "70-78"),
    "insect": (ANIMALS, "300-326"),
    "other invertebrate": (ANIMALS, "69 79 107-126 327-329"),
    "dog": (ANIMALS, "151-268"),
    "wolf, wild dog or fox": (ANIMALS, "269-275 277-280"),
    "cat": (ANIMALS, "281-285"),
    "wild cat": (ANIMALS, "286-293"),
    "bear": (ANIMALS, "294-297 388"),
    "hoofed animal": (ANIMALS, "339-355"),
    "ape or monkey": (ANIMALS, "365-382"),
    "other mammal": (ANIMALS, "101-106 147-150 276 298 299 330-338 356-364 383-387"),
    "road vehicle": (
        "vehicle",
        "407 408 428 436 444 450 468 511 537 555 561 569 573 575 586 595 603 609 612 627 654 656 661 665 670 671 675 "
        "690 717 734 751 757 779 802 803 817 847 856 864 866 867 870 874 880",
    ),
    "train": ("vehicle", "466 547 565 705 820 829"),
    "boat or ship": ("vehicle", "403 472 484 510 554 576 625 628 694 780 814 833 871 913 914"),
    "aircraft": ("vehicle", "404 405 417 812 895 908"),
    "part of a vehicle": ("vehicle", "475 479 535 581 685 686 785"),
    "building or place": (
        "",
        "406 410 415 424 425 437 442 448 449 454 460 467 476 483 489 497 498 500 509 525 536 538 540 562 580 582 598 "
        "624 634 649 660 663 668 672 682 698 706 716 718 727 743 762 788 819 821 825 832 839 853 858 860 863 865 873 "
        "884 888 900 912 915",
    ),
    "furniture or furnishing": (
        "",
        "421 423 431 435 453 492 493 495 516 520 526 532 539 548 553 556 559 564 619 648 669 703 708 721 741 750 765 "
        "789 794 799 831 846 854 857 861 876 894 896 904 905",
    ),
    "clothing or accessory": (
        "",
        "399 400 411 414 433 439 443 445 451 452 457 459 461 464 465 474 490 496 501 502 514 515 518 524 529 552 560 "
        "568 570 578 584 591 601 608 610 614 615 617 630 638 639 643 652 655 658 667 678 679 689 691 697 715 735 748 "
        "770 774 775 793 796 806 808 824 834 836 837 841 842 869 879 887 893 903 906",
    ),
    "musical instrument": (
        "",
        "401 402 420 432 486 494 513 541 542 546 558 566 577 579 593 594 641 642 683 684 687 699 776 822 875 881 889",
    ),
    "electronic device": (
        "",
        "481 482 485 487 508 527 528 530 590 592 605 613 620 632 650 662 664 673 681 688 707 713 732 742 745 "
        "754 759 761 782 810 844 848 851 878 480 531 571 704 755 886",
    ),
    "household appliance": ("", "521 534 545 550 589 606 651 753 760 766 786 811 827 859 882 891 897"),
    "container or kitchenware": (
        "",
        "412 427 438 440 441 455 463 469 478 503 504 505 519 544 549 567 572 588 618 636 637 647 653 659 692 709 711 "
        "712 719 720 725 728 729 737 738 756 771 773 790 791 804 809 813 828 849 868 883 898 899 901 907 909 910 968",
    ),
    "tool or instrument": (
        "",
        "398 409 418 426 447 462 473 477 488 491 499 507 512 517 523 563 587 596 600 604 621 623 626 "
        "633 635 640 644 666 674 677 695 696 710 714 726 730 731 733 739 740 749 758 767 769 772 778 783 784 792 "
        "798 801 823 826 830 835 840 843 845 855 862 872 892 902",
    ),
    "sports or weapon": (
        "",
        "413 416 422 429 430 456 471 522 543 574 597 602 657 693 702 722 736 744 746 747 752 763 764 768 777 787 795 "
        "805 852 890",
    ),
    "dish or snack": ("food", "924-935 959-965"),
    "fruit or vegetable": ("food", "936-946 948-957"),
    "drink": ("food", "966 967 969"),
    "plant": ("", "958 984-990 998"),
    "mushroom": ("", "947 991-997"),
    "landscape": ("", "970 972-980"),
    "person": ("", "981-983"),
}
OTHER = "other object"


class ImageNetClass(NamedTuple):
    """What is known of one of ImageNet's classes.

    Attributes:
        synset: Identifier of its WordNet synset.
        definition: WordNet's definition.
        groups: The group that it belongs to, after the larger one that contains it, if there is one.
    """

    synset: str
    definition: str
    groups: tuple[str, ...]


def find_imagenet_classes(labels: Sequence[str]) -> tuple[ImageNetClass, ...] | None:
    """Return what is known of the classes with these labels; `None` unless all are labels of ImageNet's classes.

    A label of several names must be complete, so that other classes that share a name with one are not mistaken for it.

    >>> find_imagenet_classes(["tabby, tabby cat", "crane"]) is None
    True
    >>> (tabby,) = find_imagenet_classes(["tabby, tabby cat"])
    >>> tabby.synset, tabby.groups
    ('n02123045', ('animal', 'cat'))
    """
    known, classes = list_imagenet_classes()
    if tuple(labels) == known:  # two of the labels are the same
        return classes
    unique = _index_unique_labels()
    found = [unique[label] for label in labels if label in unique]
    return tuple(found) if found and len(found) == len(labels) else None


@cache
def list_imagenet_classes() -> tuple[tuple[str, ...], tuple[ImageNetClass, ...]]:
    """Return the labels of ImageNet's 1,000 classes, and what is known of each."""
    info, labels, classes = ImageNetInfo(), [], []
    for index, (synset, groups) in enumerate(zip(info.label_names(), index_groups(), strict=True)):
        labels.append(info.index_to_description(index))
        definition = info.index_to_description(index, detailed=True)[len(labels[-1]) :].lstrip(": ")
        classes.append(ImageNetClass(synset, definition, groups))
    return tuple(labels), tuple(classes)


@cache
def _index_unique_labels() -> dict[str, ImageNetClass]:
    """Return what is known of ImageNet's classes by label, without the label that two of them share."""
    labels, classes = list_imagenet_classes()
    counts = Counter(labels)
    return {label: entry for label, entry in zip(labels, classes, strict=True) if counts[label] == 1}


@cache
def index_groups() -> tuple[tuple[str, ...], ...]:
    """Return the groups of each of the 1,000 classes, the larger one first."""
    groups: list[tuple[str, ...]] = [(OTHER,)] * 1000
    for name, (larger, ranges) in GROUPS.items():
        for part in ranges.split():
            first, _, last = part.partition("-")
            for index in range(int(first), int(last or first) + 1):
                groups[index] = (larger, name) if larger else (name,)
    return tuple(groups)
