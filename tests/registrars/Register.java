import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.retry.RetryOneTime;
import org.apache.curator.x.discovery.ServiceDiscovery;
import org.apache.curator.x.discovery.ServiceDiscoveryBuilder;
import org.apache.curator.x.discovery.ServiceInstance;
import org.apache.curator.x.discovery.UriSpec;
import org.apache.curator.x.discovery.details.JsonInstanceSerializer;

/** Registers services by Curator's discovery, with payloads of several kinds. See record. */
public class Register {
    /** The fields of Spring Cloud's ZookeeperInstance, which Dubbo has too. */
    public static class Instance {
        public String id;
        public String name;
        public Map<String, String> metadata = new LinkedHashMap<>();

        public Instance() {}

        Instance(String id, String name, String... metadata) {
            this.id = id;
            this.name = name;
            for (int at = 0; at < metadata.length; at += 2) {
                this.metadata.put(metadata[at], metadata[at + 1]);
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.newClient(arguments[0], new RetryOneTime(1000));
        client.start();
        ServiceDiscovery<Object> discovery =
            ServiceDiscoveryBuilder.builder(Object.class).client(client).basePath("/curator").build();
        discovery.start();
        UriSpec uri = new UriSpec("{scheme}://{address}:{port}");
        discovery.registerService(ServiceInstance.builder().name("app").id("plain").address("10.1.1.1").port(8080).build());
        discovery.registerService(ServiceInstance.builder().name("app").id("weighted").address("10.1.1.2").port(8080)
            .uriSpec(uri).payload(new Instance("application-1", "app", "instance_status", "UP", "weight", "30", "zone", "z1"))
            .build());
        discovery.registerService(ServiceInstance.builder().name("app").id("secure").address("10.1.1.3").port(8080)
            .sslPort(8443).uriSpec(uri).payload(new Instance("application-1", "app", "team", "a")).build());
        discovery.registerService(ServiceInstance.builder().name("app").id("draining").address("10.1.1.4").port(8080)
            .payload(new Instance("application-1", "app", "instance_status", "OUT_OF_SERVICE")).build());
        discovery.registerService(ServiceInstance.builder().name("app").id("text").address("10.1.1.5").port(8080)
            .payload("a text").build());
        discovery.registerService(ServiceInstance.builder().name("app").id("named").address("localhost").port(8081).build());
        discovery.registerService(ServiceInstance.builder().name("dubbo-app").id("10.1.1.6:20880").address("10.1.1.6")
            .port(20880).payload(new Instance("10.1.1.6:20880", "dubbo-app", "dubbo.metadata.storage-type", "local",
                "dubbo.endpoints", "[{\"port\":20880,\"protocol\":\"tri\"}]")).build());

        // What is not the default: readers of old do not know `enabled`.
        JsonInstanceSerializer<Object> serializer = new JsonInstanceSerializer<>(Object.class, false);
        ServiceDiscovery<Object> newer = ServiceDiscoveryBuilder.builder(Object.class).client(client)
            .basePath("/curator").serializer(serializer).build();
        newer.start();
        newer.registerService(ServiceInstance.builder().name("app").id("enabled").address("10.1.1.7").port(8080)
            .enabled(true).build());
        newer.registerService(ServiceInstance.builder().name("app").id("disabled").address("10.1.1.8").port(8080)
            .enabled(false).build());
        System.out.println("registered");
        while (System.in.read() >= 0) {}
        System.exit(0);
    }
}
