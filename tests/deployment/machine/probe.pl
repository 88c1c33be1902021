# Tries what a proxy has no business to do, and says of each how it went: "NAME allowed" or "NAME ERROR".
# perl, because it is part of every Debian, and makes system calls by number (those of x86-64 and arm64).
use strict;
use warnings;
use Errno;
use POSIX ();
use Socket;

my $is_arm = (POSIX::uname())[4] eq 'aarch64';
my %number = (
    chroot => [161, 51], mmap => [9, 222], mount => [165, 40], personality => [135, 92], setdomainname => [171, 162],
    setuid => [105, 146], unshare => [272, 97],
);
sub call { my ($name, @with) = @_; return syscall($number{$name}[$is_arm ? 1 : 0], @with) != -1 }
sub writes { my ($file) = @_; open(my $opened, '>', $file) or return 0; return unlink $file }
sub reads { my ($file) = @_; open(my $opened, '<', $file) or return 0; return defined <$opened> }
sub opens { my (@what) = @_; return socket(my $socket, $what[0], $what[1], $what[2]) }
sub binds {
    my ($port) = @_;
    socket(my $socket, AF_INET, SOCK_STREAM, 0) or return 0;
    return bind($socket, sockaddr_in($port, INADDR_LOOPBACK));
}
sub sets_user_id {
    my ($file) = @_;
    open(my $opened, '>', $file) or return 0;
    my ($is_set, $why) = (chmod(04755, $file), $!);
    unlink $file;
    $! = $why;
    return $is_set;
}

my @attempts = (
    [ 'write in /etc' => sub { writes('/etc/probe') } ],
    [ 'write its own configuration' => sub { writes('/etc/pointsman/probe') } ],
    [ 'write in /usr' => sub { writes('/usr/probe') } ],
    [ 'write in /var' => sub { writes('/var/probe') } ],
    [ 'write in /var/lib' => sub { writes('/var/lib/probe') } ],
    [ 'write in /root' => sub { writes('/root/probe') } ],
    [ 'read /etc/shadow' => sub { reads('/etc/shadow') } ],
    [ 'see process 1' => sub { reads('/proc/1/status') } ],
    [ 'signal process 1' => sub { kill(0, 1) } ],
    [ 'make a group of processes' => sub { mkdir('/sys/fs/cgroup/probe') && rmdir('/sys/fs/cgroup/probe') } ],
    [ 'mount' => sub { call('mount', 'tmpfs', '/mnt', 'tmpfs', 0, 0) } ],
    [ 'unshare its mounts' => sub { call('unshare', 0x00020000) } ],
    [ 'become root' => sub { call('setuid', 0) } ],
    [ 'change its root' => sub { call('chroot', '/') } ],
    [ 'set the domain name' => sub { call('setdomainname', 'probe', 5) } ],
    [ 'become another kind of Linux' => sub { call('personality', 8) } ],
    [ 'map memory to write and run' => sub { call('mmap', 0, 4096, 7, 0x22, -1, 0) } ],
    [ 'make a file that runs as its owner' => sub { sets_user_id('/tmp/probe') } ],
    [ 'bind a port below 1024' => sub { binds(81) } ],
    [ 'open a packet socket' => sub { opens(17, SOCK_RAW, 0) } ],
    [ 'open a netlink socket' => sub { opens(16, SOCK_RAW, 0) } ],
    [ 'open a raw socket' => sub { opens(AF_INET, SOCK_RAW, 1) } ],
    # And what it has to be able to.
    [ '+ write its state' => sub { writes('/var/lib/pointsman/probe') } ],
    [ '+ write its log' => sub { writes('/var/log/pointsman/probe') } ],
    [ '+ read its configuration' => sub { reads('/etc/pointsman/pointsman.toml') } ],
    [ '+ write in a /tmp of its own' => sub { open(my $opened, '>', '/tmp/probe-was-here') } ],
);
for my $attempt (@attempts) {
    my ($name, $try) = @$attempt;
    # Each by itself: one that succeeds must not change what the next may.
    my $child = open(my $said, '-|') // die "fork: $!";
    if (!$child) {
        $! = 0;
        my ($is_allowed, $why) = ($try->(), $! + 0);
        my ($error) = grep { Errno->can($_)->() == $why } keys %!;
        print $is_allowed ? 'allowed' : $error // $why;
        POSIX::_exit(0) if close(STDOUT);
    }
    print "$name\t", <$said>, "\n";
}
